# shellcheck shell=bash
# Redis of an instance: saves a snapshot while it serves, puts one back. Sourced.

# The secrets' folder of the instance that was found.
use_instance_secrets() {
  [[ ${mode:?} == try ]] && secrets_dir=${try_dir:?}/secrets
  return 0
}

# redis COMMAND…: the password goes by the environment of that one command.
redis() {
  if [[ $mode == try ]]; then
    REDISCLI_AUTH=$(cat "$secrets_dir/redis_password" 2>/dev/null || true) \
      redis-cli -p "$(redis_port)" "$@"
  else
    # shellcheck disable=SC2016 # expanded in the container
    "${compose[@]:?}" exec -T redis sh -c \
      'REDISCLI_AUTH="$(cat /run/secrets/redis_password)" exec redis-cli "$@"' redis "$@"
  fi
}

redis_port() {
  local -a argv
  mapfile -d '' -t argv <"/proc/$(part_pid redis)/cmdline"
  # Redis writes its title over its command line: «redis-server 127.0.0.1:8446».
  printf '%s\n' "${argv[*]}" | sed -n 's/.*:\([0-9][0-9]*\).*/\1/p' | head -n 1
}

# save_redis FILE: a snapshot of now, complete and checked.
save_redis() {
  local file=$1 before
  before=$(redis lastsave)
  redis bgsave schedule >/dev/null
  wait_snapshot "$before"
  [[ $(redis info persistence | tr -d '\r' | sed -n 's/^rdb_last_bgsave_status://p') == ok ]] || {
    warn "Redis could not write its snapshot (disk full?)"
    return 1
  }
  if [[ $mode == try ]]; then
    cp "$(redis config get dir | tail -n 1)/dump.rdb" "$file"
  else
    "${compose[@]}" cp --quiet redis:/data/dump.rdb "$file"
  fi
  # A snapshot begins with its magic and ends with a checksum's eight bytes.
  [[ $(head -c 5 "$file") == REDIS ]]
}

wait_snapshot() {
  local deadline=$((SECONDS + 120))
  # lastsave has whole seconds: a save within the same second as the last one is seen by its end.
  while [[ $(redis lastsave) == "$1" ]]; do
    ((SECONDS < deadline)) || {
      warn "Redis did not finish its snapshot within 120 s"
      return 1
    }
    sleep 0.3
  done
}

# append_only_files RDB FOLDER: the snapshot as the base of an append-only log. A Redis that is
# started with an append-only log and finds none begins empty, whatever snapshot lies beside it.
append_only_files() {
  local rdb=$1 folder=$2
  mkdir -p "$folder/appendonlydir"
  cp "$rdb" "$folder/appendonlydir/appendonly.aof.1.base.rdb"
  printf 'file appendonly.aof.1.base.rdb seq 1 type b\n' >"$folder/appendonlydir/appendonly.aof.manifest"
}
