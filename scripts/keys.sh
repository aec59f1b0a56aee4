#!/usr/bin/env bash
# API keys: add one, revoke one, list their names. Gateways follow within seconds, no restart.
#
# Usage: scripts/keys.sh add NAME [--dry-run]
#        scripts/keys.sh revoke NAME [--dry-run]
#        scripts/keys.sh list
#
# Only a key's SHA-256 is kept: a lost key cannot be shown again, make a new one. Sessions belong
# to the name, so they outlive a change of the key.
#
# Exit: 0 done · 2 usage · 3 refused, nothing changed
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/secrets.sh"

main() {
  local command='' name='' argument
  for argument in "$@"; do
    case $argument in
      --help | -h) usage; exit 0 ;;
      --dry-run) dry_run=1 ;;
      -*) die 2 "unknown option: $argument" "" "scripts/keys.sh --help" ;;
      *) if [[ -z $command ]]; then command=$argument; else name=$argument; fi ;;
    esac
  done
  case $command in
    list) sed -n 's/^\([A-Za-z0-9_.@-]*\) .*/\1/p' "$secrets_dir/api_keys" ;;
    add | revoke)
      [[ -n $name ]] || die 2 "which key?" "a name is missing" "scripts/keys.sh $command alice"
      change "$command" "$name"
      ;;
    *) die 2 "no such command: ${command:-none}" "expected add, revoke or list" "scripts/keys.sh --help" ;;
  esac
}

change() {
  if [[ -n ${dry_run:-} ]]; then
    say "would $1 the key of $2"
    return
  fi
  make_secrets_dir
  if [[ $1 == add ]]; then add_key "$2"; else revoke_key "$2"; fi
}

main "$@"
