#!/usr/bin/env bash
# Run all of Tandem on this machine, without Docker, GPU, weights or registry: two real vLLM
# engines on the CPU with a tiny model made here, both gateways, Redis, Nginx, Prometheus.
#
# Usage: scripts/try.sh [--detach]      start; Ctrl-C ends it, unless detached
#        scripts/try.sh --stop          end it
#        scripts/try.sh --status        what runs
#        scripts/try.sh --print-env     its address and key, for: eval "$(scripts/try.sh --print-env)"
#
# TRY_DIR         the instance's folder (.try)      TRY_PORT_BASE  first of its nine ports (8440)
# TANDEM_CACHE    where environments, page and model are kept (~/.cache/tandem)
# pip and npm take their own options, for example PIP_INDEX_URL, PIP_EXTRA_INDEX_URL.
#
# The answers are word salad: the model is random. Everything around it is real.
#
# Exit: 0 done · 1 failed, everything is ended again · 2 usage · 4 something is missing
#       5 not running · 7 another start is under way · 130 interrupted, everything is ended
# shellcheck disable=SC2154,SC2034 # shared with the sourced files
set -Eeuo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
TRY_DIR=$(realpath --canonicalize-missing -- "${TRY_DIR:-$here/../.try}")
SECRETS=$TRY_DIR/secrets
export TRY_DIR SECRETS
source "$here/lib/common.sh"
source "$here/lib/environments.sh"
source "$here/lib/packages.sh"
source "$here/lib/instance.sh"
source "$here/lib/secrets.sh"
source "$here/lib/try_install.sh"
source "$here/lib/try_parts.sh"
source "$here/lib/try_processes.sh"
source "$here/lib/try_start.sh"

main() {
  local command=start detach=''
  while (($#)); do
    case $1 in
      --detach) detach=1 ;;
      --stop | --status | --print-env) command=${1#--} ;;
      --help | -h) usage; exit 0 ;;
      *) die 2 "unknown option: $1" "" "scripts/try.sh --help" ;;
    esac
    shift
  done
  check_base
  case $command in
    start) start "$detach" ;;
    stop) stop ;;
    status) status ;;
    print-env) print_env ;;
  esac
}

check_base() {
  [[ $base =~ ^[0-9]{4,5}$ && $base -ge 1024 && $base -le 65000 ]] ||
    die 2 "TRY_PORT_BASE cannot be used" "$base" "a number from 1024 to 65000"
}

stop() {
  local left
  mapfile -t left < <(instance_processes)
  if ((${#left[@]} == 0)); then
    say "nothing runs in $try_dir"
    return
  fi
  step "ending ${#left[@]} processes" end_instance
}

status() {
  require_running
  supervise status || true
  say "$(url)/readyz: $(curl --silent --max-time 10 --cacert "$try_dir/certificates/tls.crt" "$(url)/readyz" || echo 'no answer')"
}

print_env() {
  require_running
  printf 'export %s=%q\n' TANDEM_URL "$(url)" TANDEM_API_KEY "$(key try)" \
    TANDEM_CA "$try_dir/certificates/tls.crt" TANDEM_DIR "$try_dir" TANDEM_MODEL "$model_name" \
    TANDEM_PORT_BASE "$(port_base)"
}

require_running() {
  try_runs || die 5 "no instance runs in $try_dir" "" "scripts/try.sh --detach"
}

main "$@"
