#!/usr/bin/env bash
# Bring a backup back: conversations, settings, keys, certificates.
#
# Usage: scripts/restore.sh [--snapshot ID] [--target ADDRESS] [--only-sessions] --yes
#        scripts/restore.sh --list
#
#   --snapshot ID     which one (latest)
#   --only-sessions   only the conversations; settings, keys and certificates stay as they are
#   --list            the snapshots there are
#   --dry-run         read and check the snapshot, change nothing
#   --yes             do it: what is there now is replaced (and kept, see below)
#
# Refuses while the instance runs. On an empty machine: clone, put the backup's password into
# secrets/restic_password, run this, then setup.sh. TANDEM_MODE=try restores a try instance.
# What was there is kept until the next restore: in backups/before-restore/, and the conversations in
# before-restore/ of the volume redis_data; all of a try instance's in .try/before-restore/.
#
# Exit: 0 restored · 1 failed · 2 usage · 3 refused, nothing changed · 4 something is missing · 6 needs --yes
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/options.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/secrets.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/restic.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/instance.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/redis.sh"

target='' snapshot=latest only_sessions='' list='' confirmed='' staging=''

main() {
  parse "$@"
  mode=${mode:-compose}
  use_instance_secrets
  use_target "$target"
  [[ -n $list ]] && { restic snapshots --tag tandem; exit 0; }
  refuse_while_running
  [[ -n $confirmed || -n $dry_run ]] ||
    die 6 "this replaces what is there" "" "add --yes, or --dry-run to look first"
  take_lock operate
  staging=$(mktemp -d)
  trap 'rm -rf "$staging"' EXIT
  remove_stale_locks
  step "read the snapshot" restic --quiet restore "$snapshot" --tag tandem --host tandem --target "$staging"
  step "check it" check_snapshot
  [[ -n $dry_run ]] && { say "complete; nothing was changed"; exit 0; }
  [[ -n $only_sessions ]] || step "settings, keys, certificates" put_files
  step "conversations" put_redis
  say "restored the backup of $(said_by_manifest date). Next: $(next_command)"
}

parse() {
  while (($#)); do
    case $1 in
      --snapshot) needs_value "$@"; snapshot=$2; shift ;;
      --target) needs_value "$@"; target=$2; shift ;;
      --only-sessions) only_sessions=1 ;;
      --list) list=1 ;;
      --yes) confirmed=1 ;;
      --dry-run) dry_run=1 ;;
      --help | -h) usage; exit 0 ;;
      *) die 2 "unknown option: $1" "" "scripts/restore.sh --help" ;;
    esac
    shift
  done
}

refuse_while_running() {
  if [[ $mode == try ]]; then
    try_runs && die 3 "the try instance runs" "" "./scripts/try.sh --stop"
    return 0
  fi
  docker version >/dev/null 2>&1 || die 4 "the Docker Engine does not answer" "" "sudo systemctl start docker"
  # Not by compose_runs: whatever runs here would see its files change.
  [[ -z $("${compose[@]}" ps --quiet 2>/dev/null) ]] || die 3 "the appliance runs" "" "docker compose down"
}

check_snapshot() {
  [[ $(said_by_manifest format) == 1 ]] || {
    warn "this backup was made by another version: its format is not 1"
    return 1
  }
  [[ -n $only_sessions || $(said_by_manifest mode) == "$mode" ]] ||
    die 3 "this backup is of a $(said_by_manifest mode) instance" "mode $mode" "--only-sessions takes its conversations"
  (cd "$staging" && grep ' redis.rdb$' manifest | sha256sum --check --quiet -)
  whole_snapshot "$staging/redis.rdb"
}

said_by_manifest() {
  sed -n "s/^$1 //p" "$staging/manifest"
}

put_files() {
  local home=$root
  [[ $mode == try ]] && home=$try_dir
  replace "$staging/secrets" "$home/secrets"
  replace "$staging/certificates" "$home/certificates"
  [[ $mode == try ]] || replace "$staging/settings/env" "$root/.env"
}

# replace NEW OLD: what was there is kept until the next restore.
replace() {
  local kept=$root/backups/before-restore
  [[ $mode == try ]] && kept=$try_dir/before-restore
  mkdir -p "$kept" "$(dirname -- "$2")"
  chmod 0700 "$kept"
  rm -rf "${kept:?}/$(basename -- "$2")"
  [[ -e $2 ]] && mv "$2" "$kept/"
  cp -rp "$1" "$2"
}

put_redis() {
  append_only_files "$staging/redis.rdb" "$staging/redis"
  if [[ $mode == try ]]; then
    replace "$staging/redis" "$try_dir/redis"
    return
  fi
  # The volume belongs to Redis's own user; its image brings it the files.
  # shellcheck disable=SC2016 # expanded in the container
  tar -C "$staging/redis" -c appendonlydir | "${compose[@]}" run --rm -T --no-deps --user 0:0 \
    --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER --entrypoint sh redis -ec '
      cd /data
      rm -rf before-restore restored
      mkdir before-restore restored
      tar -C restored -x
      for old in appendonlydir dump.rdb; do [ ! -e "$old" ] || mv "$old" before-restore/; done
      mv restored/appendonlydir .
      rmdir restored
      chown -R 999 /data'
}

next_command() {
  if [[ $mode == try ]]; then echo "./scripts/try.sh --detach"; else echo "./scripts/setup.sh"; fi
}

main "$@"
