#!/usr/bin/env bash
# Inject faults into a running instance under load, and count what callers lost.
#
# Usage: scripts/chaos.sh [--yes] [--streams N] [--tokens N] [--soak MINUTES] [FAULT…]
#        scripts/chaos.sh --list
#
#   --yes            do it: parts of the running instance are killed, one after the other
#   --streams N      callers at a time (24)        --tokens N   tokens of each answer (400)
#   --soak MINUTES   no faults: long prompts and a full cache, nothing may be restarted
#   --write-readme   put the table into the READMEs
#
# Works on the running try instance, else on the running appliance (as root: it signals processes).
# Exit: 0 nobody lost an answer · 1 somebody did · 2 usage · 5 not running · 6 needs --yes
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/options.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/environments.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/instance.sh"

main() {
  [[ " $* " == *" --help "* || " $* " == *" -h "* ]] && { usage; exit 0; }
  known_options "--yes --list --write-readme" "--streams --tokens --soak" "$@"
  if [[ " $* " != *" --list "* ]]; then
    find_instance
    take_lock operate
    use_instance_address
    export TANDEM_MODE=$mode TANDEM_LOCK_HELD=operate
  fi
  cd "$root"
  local python
  python=$(tests_python)
  "$python" -m scripts.chaos "$@"
}

# Where callers reach it: a try instance says so itself.
use_instance_address() {
  local said
  [[ $mode == try && -z ${TANDEM_URL:-} ]] || return 0
  said=$(TRY_DIR=$try_dir "$root/scripts/try.sh" --print-env)
  eval "$said"
}

main "$@"
