#!/usr/bin/env bash
# How the running instance stands: its parts, its engines as a gateway sees them, its door.
#
# Usage: scripts/status.sh [--json]      --json: the engines alone, for scripts
#
# Exit: 0 all is well · 1 something is not · 2 usage · 5 not running
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/instance.sh"

ill=0

main() {
  local json=''
  case ${1:-} in
    --help | -h) usage; exit 0 ;;
    --json) json=1 ;;
    '') ;;
    *) die 2 "unknown option: $1" "" "scripts/status.sh --help" ;;
  esac
  find_instance
  if [[ -n $json ]]; then
    in_gateway "$(some_gateway)" gateway.admin status --json
    return
  fi
  parts
  say ''
  engines
  ((ill == 0)) || { warn "not all is well"; exit 1; }
}

# One line a part.
parts() {
  if [[ $mode == try ]]; then
    supervise status | cut -c 1-100 || true
    [[ $(supervise status | grep -cv ' RUNNING ') == 0 ]] || ill=1
  else
    "${compose[@]}" ps --all --format 'table {{.Service}}\t{{.Status}}'
    "${compose[@]}" ps --all --format '{{.Status}}' | grep -Eqv '^Up [^(]*(\(healthy\))?$' && ill=1
  fi
  return 0
}

engines() {
  local shown
  shown=$(in_gateway "$(some_gateway)" gateway.admin status)
  printf '%s\n' "$shown"
  (($(grep -c ' healthy ' <<<"$shown") >= ${#engines[@]})) || ill=1
}

main "$@"
