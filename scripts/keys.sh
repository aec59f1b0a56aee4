#!/usr/bin/env bash
# API keys: add one, revoke one, list their names. Gateways follow within seconds, no restart.
#
# Usage: scripts/keys.sh add NAME [--dry-run]
#        scripts/keys.sh revoke NAME [--dry-run]
#        scripts/keys.sh list
#
# Only a key's SHA-256 is kept: a lost key cannot be shown again, make a new one. Sessions belong
# to the name, so they outlive a change of the key. SECRETS names another folder than secrets/.
#
# Exit: 0 done · 2 usage · 3 refused, nothing changed · 7 another change is under way
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/secrets.sh"

main() {
  local words=() argument
  for argument in "$@"; do
    case $argument in
      --help | -h) usage; exit 0 ;;
      --dry-run) dry_run=1 ;;
      -*) die 2 "unknown option: $argument" "" "scripts/keys.sh --help" ;;
      *) words+=("$argument") ;;
    esac
  done
  case ${words[0]:-} in
    list) list_keys ;;
    add | revoke)
      ((${#words[@]} == 2)) || die 2 "which key?" "$((${#words[@]} - 1)) names" "scripts/keys.sh ${words[0]} alice"
      change "${words[@]}"
      ;;
    *) die 2 "no such command: ${words[0]:-none}" "expected add, revoke or list" "scripts/keys.sh --help" ;;
  esac
}

list_keys() {
  [[ -f $secrets_dir/api_keys ]] || return 0
  sed -n 's/^\([A-Za-z0-9_.@-]\{1,\}\)[[:space:]].*/\1/p' "$secrets_dir/api_keys"
}

change() {
  if [[ -n $dry_run ]]; then
    say "would $1 the key of $2"
    return
  fi
  take_lock keys
  make_secrets_dir
  if [[ $1 == add ]]; then add_key "$2"; else revoke_key "$2"; fi
}

main "$@"
