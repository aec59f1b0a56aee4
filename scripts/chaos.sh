#!/usr/bin/env bash
# Inject faults into a running instance under load, and count what callers lost.
#
# Usage: scripts/chaos.sh [--yes] [--streams N] [--tokens N] [--soak MINUTES] [FAULT…]
#        scripts/chaos.sh --list
#
#   --yes            do it: parts of the running instance are killed, one after the other
#   --streams N      callers at a time (16)        --tokens N   tokens of each answer (300)
#   --soak MINUTES   no faults: long prompts and a full cache, nothing may be restarted
#   --write-readme   put the table into the READMEs
#
# Works on the running try instance, else on the running appliance (as root: it signals processes).
# Where neither runs, a try instance is started and ended again afterwards.
# Exit: 0 nobody lost an answer · 1 somebody did · 2 usage · 5 not running · 6 needs --yes
#       7 another script works on the instance · 130 interrupted, once the fault in hand was ended
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/options.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/environments.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/instance.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/packages.sh"

main() {
  [[ " $* " == *" --help "* || " $* " == *" -h "* ]] && { usage; exit 0; }
  known_options "--yes --list --write-readme" "--streams --tokens --soak" "$@"
  if [[ " $* " != *" --list "* ]]; then
    [[ " $* " == *" --yes "* || " $* " == *" --soak "* ]] && ensure_instance "$@"
    find_instance
    if [[ $mode == try && " $* " == *" --yes "* ]]; then
      (want_programs iptables:iptables) || warn "without iptables no network is cut"
    fi
    take_lock operate
    use_instance_address
    export TANDEM_MODE=$mode TANDEM_LOCK_HELD=operate
  fi
  cd "$root"
  local python
  python=$(tests_python)
  interruptible "$python" -m scripts.chaos "$@" || exit $?
}

# A try instance of our own, unless something runs already or an appliance is meant.
ensure_instance() {
  if [[ $mode == compose ]] || try_runs || compose_runs; then return; fi
  local arguments=''
  # A soak fills the cache; the whole one of a try instance takes a million tokens.
  [[ " $* " == *" --soak "* ]] && arguments='--num-gpu-blocks-override 384'
  trap 'TRY_DIR=$try_dir "$root/scripts/try.sh" --stop' EXIT
  TRY_DIR=$try_dir TRY_ENGINE_ARGS=$arguments "$root/scripts/try.sh" --detach
}

# Where callers reach it: a try instance says so itself.
use_instance_address() {
  local said
  [[ $mode == try && -z ${TANDEM_PORT_BASE:-} ]] || return 0
  said=$(TRY_DIR=$try_dir "$root/scripts/try.sh" --print-env)
  eval "$said"
}

main "$@"
