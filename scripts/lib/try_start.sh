# shellcheck shell=bash disable=SC2154,SC2034 # shared with the files sourced beside it
# Starts a try instance and waits until it answers. Sourced by scripts/try.sh.

ready_seconds=${TRY_READY_SECONDS:-300}

start() {
  local detach=$1 began=$SECONDS
  take_lock start
  if try_runs; then
    say "already running: $(url)"
    report
    return
  fi
  prepare
  trap 'interrupted' INT TERM
  trap 'ended' EXIT
  launch
  step "the engines load and both gateways see them" wait_ready
  say "ready after $((SECONDS - began)) s"
  report
  if [[ -n $detach ]]; then
    trap - EXIT INT TERM
    return
  fi
  exec {lock_handle}>&-
  say "Ctrl-C ends it."
  while try_runs; do
    sleep 1 &
    wait $! || true
  done
  say "ended from elsewhere"
}

prepare() {
  step "programs" install_programs
  step "environments of the gateways and the supervisor" make_gateway_environment
  step "environment of the engines (large when made for the first time)" make_engine_environment
  step "page" make_page
  step "model" make_model
  end_instance # what an instance left that was killed
  check_ports_free
  step "configuration" write_parts
}

check_ports_free() {
  local port
  for ((port = base; port <= base + 8; port++)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      die 4 "port $port is taken" "ports $base to $((base + 8)) are needed" "TRY_PORT_BASE=$((base + 100)) scripts/try.sh"
    fi
  done
}

# In a session of its own, so that Ctrl-C reaches only this script, which then ends it in order.
# SPT_NOENV: the engines' processes rename themselves without losing their environment.
launch() {
  local files
  files=$(ulimit -Hn)
  if [[ $files == unlimited ]] || ((files > 65536)); then files=65536; fi
  ulimit -Sn "$files"
  printf '%s\n' "$base" >"$try_dir/port_base"
  (
    cd "$try_dir/run" || exit
    close_inherited
    export TANDEM_INSTANCE=$try_dir SPT_NOENV=1
    exec setsid "$supervisor_python" -m supervisor.supervisord --nodaemon --configuration "$try_dir/supervisord.conf"
  ) </dev/null >"$try_dir/logs/start.log" 2>&1 &
  local end=$((SECONDS + 30))
  until try_runs; do
    ((SECONDS < end)) || die 1 "the supervisor did not start" "$(tail -n 3 "$try_dir/logs/start.log")" ""
    sleep 0.1
  done
}

# Locks and pipes of whoever called: an instance that lives on must not hold them.
close_inherited() {
  local file handle
  for file in /proc/"$BASHPID"/fd/*; do
    handle=${file##*/}
    if ((handle > 2 && handle != 255)); then exec {handle}>&-; fi
  done
}

wait_ready() {
  local end=$((SECONDS + ready_seconds)) missing
  while missing=$(not_ready); do
    try_runs || die 1 "the supervisor ended" "$(tail -n 3 "$try_dir/logs/supervisord.log")" ""
    if ((SECONDS >= end)); then
      tail -n 15 "$try_dir"/logs/{vllm-a,vllm-b,gateway-a,gateway-b,nginx}.log >&2 || true
      die 1 "not ready after $ready_seconds s" "$missing" "the logs are in $try_dir/logs"
    fi
    sleep 0.5
  done
}

# Prints what is missing and succeeds; fails when everything is ready.
not_ready() {
  local port
  for port in "$gateway_a_port" "$gateway_b_port"; do
    local seen
    seen=$(curl --silent --max-time 5 "http://127.0.0.1:$port/internal/engines" || true)
    if (($(grep -o '"state": *"healthy"' <<<"$seen" | wc -l) < 2)); then
      printf 'the gateway on port %s says: %s\n' "$port" "${seen:-nothing}"
      return 0
    fi
  done
  if ! curl --silent --fail --max-time 5 --cacert "$try_dir/certificates/tls.crt" --output /dev/null "$(url)/readyz"; then
    printf 'the door does not answer on port %s\n' "$https_port"
    return 0
  fi
  return 1
}

report() {
  cat <<END

  page     $(url)
  API key  $(key try)
  ask      curl --cacert $try_dir/certificates/tls.crt $(url)/v1/chat \\
             -H "Authorization: Bearer $(key try)" -H "Content-Type: application/json" \\
             -d '{"prompt": "Hello", "max_tokens": 32}'
  logs     $try_dir/logs
  end it   scripts/try.sh --stop

END
}

# The port of the running instance, not of this call's environment.
port_base() {
  cat "$try_dir/port_base"
}

url() {
  printf 'https://localhost:%s' "$(port_base)"
}

key() {
  cat "$secrets_dir/$1.key"
}

interrupted() {
  exit 130
}

ended() {
  local code=$?
  trap '' INT TERM
  trap - ERR EXIT
  printf '\n' >&2
  step "ending everything" end_instance
  exit "$code"
}
