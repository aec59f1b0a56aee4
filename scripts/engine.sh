#!/usr/bin/env bash
# Take an engine out of service, put it back, or see how all stand.
#
# Usage: scripts/engine.sh drain ENGINE [--wait] [--dry-run]
#        scripts/engine.sh undrain ENGINE [--dry-run]
#        scripts/engine.sh status [--json]
#
# drain     no new work goes there; running answers move to the other engine at once,
#           or end by themselves with --wait. Lasts until undrain, a day at most.
#
# Exit: 0 done · 1 failed · 2 usage · 5 not running
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/instance.sh"

main() {
  local command=${1:-}
  [[ $command == --help || $command == -h ]] && { usage; exit 0; }
  case $command in
    drain | undrain | status) shift ;;
    *) die 2 "no such command: ${command:-none}" "expected drain, undrain or status" "scripts/engine.sh --help" ;;
  esac
  local -a arguments=()
  local argument
  for argument in "$@"; do
    case $argument in
      --dry-run) dry_run=1 ;;
      --wait | --json) arguments+=("$argument") ;;
      --help | -h) usage; exit 0 ;;
      -*) die 2 "unknown option: $argument" "" "scripts/engine.sh --help" ;;
      *) arguments+=("$argument") ;;
    esac
  done
  check_engine "$command" "${arguments[@]}"
  find_instance
  if [[ $command == status ]]; then
    in_gateway "$(some_gateway)" gateway.admin status "${arguments[@]}"
  else
    run in_gateway "$(some_gateway)" gateway.admin "$command" "${arguments[@]}"
  fi
}

check_engine() {
  [[ $1 == status ]] && return
  is_engine "${2:-}" ||
    die 2 "no such engine: ${2:-none}" "engines: ${engines[*]}" "scripts/engine.sh $1 ${engines[0]}"
}

main "$@"
