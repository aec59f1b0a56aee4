#!/usr/bin/env bash
# Set up and run the tests. Without a stage: all of them; a failing one does not stop the next.
#
# Usage: scripts/test.sh [STAGE…] [-- PYTEST-ARGUMENTS…]
#
#   lint         ruff, mypy, shellcheck, TypeScript
#   unit         every module by itself, the page's too
#   config       compose, Nginx, monitoring, scripts, the repository: what must hold in them
#   web          the page in a real Chromium
#   integration  a whole instance (scripts/try.sh) with real vLLM engines, and parts of it killed
#   stack        the appliance on a real Docker Engine
#
# web and integration share one instance, in a folder of its own, ended at the end.
# As root on Debian missing packages are installed; else they are named.
#
# Exit: 0 all passed · 1 one failed · 2 usage · 4 something is missing · 130 interrupted
# shellcheck disable=SC2154,SC2034 # shared with the sourced files
set -Eeuo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib/common.sh"
source "$here/lib/environments.sh"
source "$here/lib/packages.sh"
source "$here/lib/try_install.sh"
source "$here/lib/test_stages.sh"

all_stages=(lint unit config web integration stack)
stages=() pytest_arguments=() rows=()
work='' worker='' failed_stages=0

main() {
  parse "$@"
  cd "$root"
  work=$(mktemp -d)
  trap 'finish' EXIT
  prepare_tests
  local stage
  for stage in "${stages[@]}"; do
    run_stage "$stage"
  done
  report
  ((failed_stages == 0)) || exit 1
}

parse() {
  while (($#)); do
    case $1 in
      --) shift; pytest_arguments=("$@"); break ;;
      --help | -h) usage; exit 0 ;;
      -*) die 2 "unknown option: $1" "" "scripts/test.sh --help" ;;
      *) [[ " ${all_stages[*]} " == *" $1 "* ]] ||
           die 2 "no such stage: $1" "stages: ${all_stages[*]}" "scripts/test.sh --help"
         stages+=("$1") ;;
    esac
    shift
  done
  ((${#stages[@]})) || stages=("${all_stages[@]}")
}

has() {
  [[ " ${stages[*]} " == *" $1 "* ]]
}

# A stage runs in a process of its own, so that what fails in it does not end this script.
run_stage() {
  local stage=$1 began=$SECONDS code=0 verdict
  printf '\n==== %s ====\n' "$stage"
  (trap - ERR; "stage_$stage") &
  worker=$!
  wait "$worker" || code=$?
  worker=''
  case $code in
    0) verdict=passed ;;
    124 | 137) verdict='took too long' ;;
    *) verdict=failed ;;
  esac
  [[ $verdict == passed ]] || failed_stages=$((failed_stages + 1))
  rows+=("$(printf '%-12s %-14s %5s s' "$stage" "$verdict" $((SECONDS - began)))")
}

report() {
  printf '\n==== in all ====\n'
  printf '%s\n' "${rows[@]}"
}

# Ends what was started here, and nothing else: the stage's processes first, then the instance.
finish() {
  local code=$?
  trap '' INT TERM
  trap - ERR EXIT
  if [[ -n $worker ]]; then
    end_worker
  fi
  TRY_DIR=$work/instance TRY_PORT_BASE=$(cat "$work/port_base" 2>/dev/null || echo 8440) \
    "$root/scripts/try.sh" --stop >/dev/null 2>&1 || true
  rm -rf "$work"
  exit "$code"
}

main "$@"
