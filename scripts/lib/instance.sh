# shellcheck shell=bash
# Which instance a script works on, and how it reaches the parts: compose or try. Sourced.
#
# Sets after find_instance: mode (compose or try), engines and gateways (arrays of names).
# Needs lib/common.sh.

# From Tandem's folder: COMPOSE_FILE in .env is meant from there.
compose=(env --chdir="${root:?}" docker compose)
try_dir="${TRY_DIR:-$root/.try}"
mode="${TANDEM_MODE:-}"
engines=(vllm-a vllm-b)
gateways=(gateway-a gateway-b)

# The running instance: try when one runs, else compose; TANDEM_MODE=try|compose decides itself.
find_instance() {
  if [[ -z $mode ]]; then
    if try_runs; then mode=try; else mode=compose; fi
  fi
  if [[ $mode == try ]]; then
    try_runs || die 5 "no try instance runs" "nothing in $(basename -- "$try_dir")" "./scripts/try.sh --detach"
  else
    compose_runs || die 5 "the appliance does not run" "no running containers" "docker compose up -d --wait"
  fi
}

# A number left by a crash may be somebody else's process by now, so its name counts, too.
try_runs() {
  local pid
  pid=$(cat "$try_dir/supervisord.pid" 2>/dev/null) && [[ -n $pid ]] &&
    grep -qF supervisor.supervisord "/proc/$pid/cmdline" 2>/dev/null
}

compose_runs() {
  command -v docker >/dev/null && [[ -n $("${compose[@]}" ps --quiet gateway-a gateway-b 2>/dev/null) ]]
}

# supervisorctl of the try instance: its own program, as its supervisord was started.
supervise() {
  local -a argv
  mapfile -d '' -t argv <"/proc/$(cat "$try_dir/supervisord.pid")/cmdline"
  "${argv[0]}" -m supervisor.supervisorctl -c "$try_dir/supervisord.conf" "$@"
}

# The process id, on this host, of a part's main process; nothing when it does not run.
part_pid() {
  local pid
  if [[ $mode == try ]]; then
    pid=$(supervise pid "$1" 2>/dev/null || true)
  else
    pid=$(docker inspect --format '{{.State.Pid}}' "$("${compose[@]}" ps --quiet "$1")" 2>/dev/null || true)
  fi
  [[ $pid =~ ^[1-9][0-9]*$ ]] && printf '%s\n' "$pid"
}

# in_gateway NAME MODULE ARGS…: run one of the gateway's own commands where that gateway runs.
in_gateway() {
  local gateway=$1 pid
  shift
  if [[ $mode == try ]]; then
    pid=$(part_pid "$gateway") || die 1 "$gateway does not run" "" "./scripts/status.sh"
    in_process "$pid" -m "$@"
  else
    "${compose[@]}" exec -T "$gateway" python -m "$@"
  fi
}

# in_process PID ARGS…: the same python as that process, with its environment and folder.
in_process() {
  local pid=${1:?} variables argv
  shift
  mapfile -d '' -t variables <"/proc/$pid/environ"
  mapfile -d '' -t argv <"/proc/$pid/cmdline"
  (cd "/proc/$pid/cwd" && env -i "${variables[@]}" "${argv[0]}" "$@")
}

# The first gateway that runs, for commands that any of them can do.
some_gateway() {
  local gateway
  for gateway in "${gateways[@]}"; do
    if part_pid "$gateway" >/dev/null; then
      printf '%s\n' "$gateway"
      return
    fi
  done
  die 5 "no gateway runs" "neither of ${gateways[*]}" "./scripts/status.sh"
}

# recreate PART: stop it in good order and start it anew, with the settings of now.
recreate() {
  if [[ $mode == try ]]; then
    supervise restart "$1" >/dev/null
  else
    "${compose[@]}" up --detach --no-deps --no-build --force-recreate "$1" >/dev/null
  fi
}

# How often a part ended and was started again by itself since it was created.
restarts() {
  local count=0
  [[ $mode == try ]] ||
    count=$(docker inspect --format '{{.RestartCount}}' "$("${compose[@]}" ps --all --quiet "$1")" 2>/dev/null || true)
  printf '%s\n' "${count:-0}"
}

# forget_failed_starts ENGINE: stops it. The count outlives the container: after a start that could
# not succeed, one that can would wait for a minute, or stay parked.
forget_failed_starts() {
  [[ $mode == try ]] && return
  "${compose[@]}" stop "$1" >/dev/null 2>&1 || true
  quietly "${compose[@]}" run --rm -T --no-deps --entrypoint rm "$1" -f "/root/.cache/tandem/$1.starts" </dev/null ||
    warn "$1 may wait before it starts: its failed starts are still counted"
}

is_engine() {
  local name
  for name in "${engines[@]}"; do
    [[ $name == "$1" ]] && return 0
  done
  return 1
}

other_engine() {
  local name
  for name in "${engines[@]}"; do
    [[ $name == "$1" ]] || printf '%s\n' "$name"
  done
}
