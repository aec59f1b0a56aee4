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
#   --yes             do it: what is there now is replaced (and kept beside it as *.before-restore)
#
# Refuses while the instance runs. On an empty machine: clone, put the backup's password into
# secrets/restic_password, run this, then setup.sh. TANDEM_MODE=try restores a try instance.
#
# Exit: 0 restored · 1 failed · 2 usage · 3 refused, nothing changed · 4 something is missing · 6 needs --yes
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
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
  step "read the snapshot" restic --quiet restore "$snapshot" --tag tandem --target "$staging"
  step "check it" check_snapshot
  [[ -n $dry_run ]] && { say "complete; nothing was changed"; exit 0; }
  [[ -n $only_sessions ]] || step "settings, keys, certificates" put_files
  step "conversations" put_redis
  say "restored the backup of $(sed -n 's/^date //p' "$staging/manifest"). Next: $(next_command)"
}

parse() {
  while (($#)); do
    case $1 in
      --snapshot) snapshot=${2:?--snapshot needs an id}; shift ;;
      --target) target=${2:?--target needs an address}; shift ;;
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
  elif compose_runs; then
    die 3 "the appliance runs" "" "docker compose down"
  fi
  return 0
}

check_snapshot() {
  [[ $(sed -n 's/^format //p' "$staging/manifest") == 1 ]] || {
    warn "this backup was made by another version: its format is not 1"
    return 1
  }
  (cd "$staging" && grep ' redis.rdb$' manifest | sha256sum --check --quiet -)
}

put_files() {
  if [[ $mode == try ]]; then
    replace "$staging/secrets" "$try_dir/secrets"
    replace "$staging/certificates" "$try_dir/certificates"
  else
    replace "$staging/secrets" "$root/secrets"
    replace "$staging/certificates" "$root/certificates"
    replace "$staging/settings/env" "$root/.env"
  fi
}

# replace NEW OLD: what was there is kept beside it until the next restore.
replace() {
  rm -rf "$2.before-restore"
  [[ -e $2 ]] && mv "$2" "$2.before-restore"
  mkdir -p "$(dirname -- "$2")"
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
    --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER --entrypoint sh redis -c \
    'rm -rf /data/appendonlydir /data/dump.rdb && tar -C /data -x && chown -R 999 /data'
}

next_command() {
  if [[ $mode == try ]]; then echo "./scripts/try.sh --detach"; else echo "docker compose up -d --wait"; fi
}

main "$@"
