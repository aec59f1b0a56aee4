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
# Ends when every gateway that runs has followed.
#
# Exit: 0 done · 1 failed, or a gateway did not follow in time (the wish stays noted) · 2 usage
#       5 not running
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/instance.sh"

command='' engine='' options=()
follow_seconds=10

main() {
  parse "$@"
  find_instance
  if [[ $command == status ]]; then
    in_gateway "$(some_gateway)" gateway.admin status "${options[@]}"
  else
    run in_gateway "$(some_gateway)" gateway.admin "$command" "$engine" "${options[@]}"
    [[ -n $dry_run ]] || wait_until_followed
  fi
}

# Whoever drains an engine to work on it must know that it gets nothing more.
wait_until_followed() {
  local gateway wanted=undrained
  [[ $command == drain ]] && wanted=drained-move
  [[ " ${options[*]} " == *" --wait "* ]] && wanted=drained-wait
  for gateway in "${gateways[@]}"; do
    part_pid "$gateway" >/dev/null || continue
    in_gateway "$gateway" gateway.rollout_check wait "$engine" "$wanted" --seconds "$follow_seconds" ||
      die 1 "$gateway has not followed" "the ${command} of $engine is noted, for all gateways" "./scripts/status.sh"
  done
}

parse() {
  local argument words=()
  for argument in "$@"; do
    case $argument in
      --help | -h) usage; exit 0 ;;
      --dry-run) dry_run=1 ;;
      --wait | --json) options+=("$argument") ;;
      -*) die 2 "unknown option: $argument" "" "scripts/engine.sh --help" ;;
      *) words+=("$argument") ;;
    esac
  done
  command=${words[0]:-} engine=${words[1]:-}
  case $command${options[*]:+ ${options[*]}} in
    drain | 'drain --wait' | undrain) check_engine ;;
    status | 'status --json') ;;
    *) die 2 "no such command: $command ${options[*]}" "expected drain, undrain or status" "scripts/engine.sh --help" ;;
  esac
}

check_engine() {
  is_engine "$engine" ||
    die 2 "no such engine: ${engine:-none}" "engines: ${engines[*]}" "scripts/engine.sh $command ${engines[0]}"
}

main "$@"
