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
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/secrets.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/restic.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/instance.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/redis.sh"

target='' prune=1 staging=''

main() {
  parse "$@"
  find_instance
  use_instance_secrets
  use_target "$target"
  if [[ -n $dry_run ]]; then
    say "would save conversations, settings, secrets and certificates of the $mode instance to $RESTIC_REPOSITORY"
    exit 0
  fi
  take_lock backup
  staging=$(mktemp -d)
  trap 'rm -rf "$staging"' EXIT
  chmod 0700 "$staging"
  step "snapshot of Redis" save_redis "$staging/redis.rdb"
  step "settings, secrets, certificates" collect
  step "to the repository" store
  [[ -n $prune ]] && step "delete old snapshots" forget
  step "check the repository" restic --quiet check
  restic --quiet snapshots --latest 1 --tag tandem >/dev/null
  note_success
  say "saved: $(restic snapshots --latest 1 --tag tandem --json | sed -n 's/.*"short_id":"\([0-9a-f]*\)".*/\1/p' | tail -n 1)"
}

parse() {
  while (($#)); do
    case $1 in
      --target) target=${2:?--target needs an address}; shift ;;
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
  fi
  manifest >"$staging/manifest"
}

# What this is a backup of: a restore says so before it changes anything.
manifest() {
  printf 'format 1\nmode %s\ndate %s\n' "$mode" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
  printf 'version %s\n' "$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)"
  (cd "$staging" && sha256sum redis.rdb)
}

store() {
  restic --quiet cat config >/dev/null 2>&1 || restic --quiet init
  (cd "$staging" && restic --quiet backup --tag tandem --host tandem .)
}

forget() {
  restic --quiet forget --tag tandem --host tandem --group-by host,tags --prune \
    --keep-hourly 48 --keep-daily 14 --keep-weekly 8 --keep-monthly 12
}

# For an alert on old backups: written whole, or not at all.
note_success() {
  local folder=$root/backups
  [[ $mode == try ]] && folder=$try_dir
  mkdir -p "$folder"
  printf 'tandem_backup_last_success_timestamp_seconds %s\n' "$(date +%s)" >"$folder/backup.prom.partial"
  mv "$folder/backup.prom.partial" "$folder/backup.prom"
}

main "$@"
