# shellcheck shell=bash disable=SC2154,SC2034 # shared with the files sourced beside it
# The processes of one try instance: which they are, how they end. Sourced.
#
# A process is the instance's when its environment says so. Nginx writes over its own, so it is
# known by the folder it works in, where nothing else does. Needs lib/common.sh, lib/instance.sh.

stop_seconds=40

# Process ids, one a line. Nothing of anybody else is ever among them.
instance_processes() {
  local folder
  for folder in /proc/[0-9]*; do
    if grep -qzxF "TANDEM_INSTANCE=${try_dir:?}" "$folder/environ" 2>/dev/null || is_our_nginx "$folder"; then
      is_zombie "$folder" || printf '%s\n' "${folder##*/}"
    fi
  done
}

is_our_nginx() {
  [[ $(cat "$1/comm" 2>/dev/null) == nginx && $(readlink "$1/cwd" 2>/dev/null) == "$try_dir/run" ]]
}

is_zombie() {
  local state
  state=$(sed -n 's/^State:\t\(.\).*/\1/p' "$1/status" 2>/dev/null) || return 0
  [[ -z $state || $state == [ZX] ]]
}

# end_instance: in good order first (the door, the gateways, the rest), then by force. Says nothing.
end_instance() {
  if try_runs; then
    end_in_order &
    local pid=$! end=$((SECONDS + stop_seconds))
    while kill -0 "$pid" 2>/dev/null && ((SECONDS < end)); do sleep 0.2; done
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  fi
  local signal
  for signal in TERM KILL KILL; do
    end_left "$signal" && break
  done
  rm -f "$try_dir/supervisord.pid"
}

end_in_order() {
  trap - ERR
  supervise stop nginx >/dev/null 2>&1
  supervise stop gateway-a >/dev/null 2>&1 &
  supervise stop gateway-b >/dev/null 2>&1 &
  wait
  supervise stop all >/dev/null 2>&1
  supervise shutdown >/dev/null 2>&1
  while try_runs; do sleep 0.2; done
}

# end_left SIGNAL: true when nothing is left within five seconds.
end_left() {
  local left end=$((SECONDS + 5))
  while :; do
    mapfile -t left < <(instance_processes)
    ((${#left[@]})) || return 0
    kill -s "$1" "${left[@]}" 2>/dev/null || true
    ((SECONDS < end)) || return 1
    sleep 0.3
  done
}
