#!/usr/bin/env bash
# Back up what cannot be made again: conversations, settings, keys, certificates.
#
# Usage: scripts/backup.sh [--target ADDRESS] [--dry-run] [--no-prune]
#
#   --target ADDRESS   any restic repository (a folder, sftp:, s3:, rest:); else BACKUP_TARGET in .env
#   --no-prune         delete no old snapshots
#
# Works while serving. Kept: 48 hourly, 14 daily, 8 weekly, 12 monthly snapshots. The weights are
# not in it, only their checksums: they can be fetched again. KEEP secrets/restic_password SOMEWHERE
# ELSE AS WELL: without it no backup can be read.
#
# Exit: 0 saved and checked · 1 failed · 2 usage · 4 something is missing · 5 not running · 7 locked
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/options.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/secrets.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/restic.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/instance.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/redis.sh"

target='' prune=1 staging='' saved=''

main() {
  parse "$@"
  find_instance
  use_instance_secrets
  [[ -n $dry_run ]] || make_password
  use_target "$target"
  if [[ -n $dry_run ]]; then
    say "would save conversations, settings, secrets and certificates of the $mode instance to $RESTIC_REPOSITORY"
    exit 0
  fi
  take_lock backup
  staging=$(mktemp -d)
  trap 'rm -rf "$staging"' EXIT
  step "open the repository" open_repository
  step "snapshot of Redis" save_redis "$staging/redis.rdb"
  step "settings, secrets, certificates" collect
  step "to the repository" store
  [[ -n $prune ]] && step "delete old snapshots" forget
  step "check the repository" restic --quiet check
  note_success
  say "saved: $saved"
}

parse() {
  while (($#)); do
    case $1 in
      --target) needs_value "$@"; target=$2; shift ;;
      --no-prune) prune='' ;;
      --dry-run) dry_run=1 ;;
      --help | -h) usage; exit 0 ;;
      *) die 2 "unknown option: $1" "" "scripts/backup.sh --help" ;;
    esac
    shift
  done
}

collect() {
  mkdir -p "$staging/settings"
  cp -rL "$secrets_dir" "$staging/secrets"
  if [[ $mode == try ]]; then
    cp -rL "$try_dir/certificates" "$staging/certificates"
  else
    cp -rL "$root/certificates" "$staging/certificates"
    cp -p "$root/.env" "$staging/settings/env"
    "${compose[@]}" config --images | sort -u >"$staging/settings/images"
    checksums_of_weights
  fi
  manifest >"$staging/manifest"
}

checksums_of_weights() {
  local folder
  folder=$(sed -n 's/^MODEL_DIR=//p' "$root/.env" | tail -n 1)
  [[ $folder == /* ]] || folder=$root/$folder
  [[ ! -f $folder/weights.sha256 ]] || cp "$folder/weights.sha256" "$staging/settings/"
}

# What this is a backup of: a restore says so before it changes anything.
manifest() {
  printf 'format 1\nmode %s\ndate %s\n' "$mode" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
  printf 'version %s\n' "$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)"
  (cd "$staging" && sha256sum redis.rdb)
}

open_repository() {
  if ! repository_opens && ! restic --quiet init >&2; then
    die 1 "the repository can neither be opened nor made" "$RESTIC_REPOSITORY" \
      "is it reachable, and is $(basename -- "$RESTIC_PASSWORD_FILE") its password?"
  fi
  remove_stale_locks
}

store() {
  local said
  said=$(cd "$staging" && restic --json backup --tag tandem --host tandem .)
  saved=$(sed -n 's/.*"snapshot_id":"\([0-9a-f]\{8\}\).*/\1/p' <<<"$said")
  [[ -n $saved ]]
}

forget() {
  restic --quiet forget --tag tandem --host tandem --group-by host,tags --prune \
    --keep-hourly 48 --keep-daily 14 --keep-weekly 8 --keep-monthly 12
}

# For the alert on old backups: a file, written whole or not at all, and Redis, where the gateways
# read it (gateway/backup_note.py).
note_success() {
  local folder=$root/backups now
  now=$(date +%s)
  redis set tandem:backup:last "$now" >/dev/null || warn "the alert on old backups does not know of this one"
  [[ $mode == try ]] && folder=$try_dir
  mkdir -p "$folder"
  printf 'tandem_backup_last_success_timestamp_seconds %s\n' "$now" >"$folder/backup.prom.partial"
  mv "$folder/backup.prom.partial" "$folder/backup.prom"
}

main "$@"
