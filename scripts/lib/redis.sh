# shellcheck shell=bash
# Redis of an instance: saves a snapshot while it serves, puts one back. Sourced; needs
# lib/common.sh, lib/secrets.sh, lib/instance.sh.

snapshot_seconds=180

# The secrets' folder of the instance that was found.
use_instance_secrets() {
  [[ ${mode:?} == try ]] && secrets_dir=${try_dir:?}/secrets
  return 0
}

# redis COMMAND…: the password goes by the environment of that one command.
redis() {
  if [[ $mode == try ]]; then
    REDISCLI_AUTH=$(cat "$secrets_dir/redis_password") redis-cli -p "$(redis_port)" "$@"
  else
    # shellcheck disable=SC2016 # expanded in the container
    "${compose[@]:?}" exec -T redis sh -c \
      'REDISCLI_AUTH="$(cat /run/secrets/redis_password)" exec redis-cli "$@"' redis "$@"
  fi
}

redis_port() {
  sed -n 's/^port \([0-9][0-9]*\)$/\1/p' "$try_dir/redis.conf"
}

# redis_says SECTION FIELD: one value of Redis's own overview.
redis_says() {
  redis info "$1" | tr -d '\r' | sed -n "s/^$2://p"
}

# save_redis FILE: a snapshot of now, complete and checked.
save_redis() {
  local file=$1 life
  life=$(redis_says server run_id)
  begin_snapshot
  wait_snapshot
  [[ $(redis_says persistence rdb_last_bgsave_status) == ok ]] || {
    warn "Redis could not write its snapshot (is the disk full?)"
    return 1
  }
  [[ -n $life && $(redis_says server run_id) == "$life" ]] || {
    warn "Redis was started anew meanwhile"
    return 1
  }
  if [[ $mode == try ]]; then
    cp "$(redis config get dir | tail -n 1)/dump.rdb" "$file"
  else
    "${compose[@]}" cp redis:/data/dump.rdb "$file"
  fi
  whole_snapshot "$file"
}

# Refused while Redis writes something else; asked again then.
begin_snapshot() {
  local end=$((SECONDS + snapshot_seconds)) said
  until said=$(redis bgsave) && [[ $said == *started* ]]; do
    ((SECONDS < end)) || {
      warn "Redis does not begin a snapshot: $said"
      return 1
    }
    sleep 0.3
  done
}

wait_snapshot() {
  local end=$((SECONDS + snapshot_seconds))
  until [[ $(redis_says persistence rdb_bgsave_in_progress) == 0 ]]; do
    ((SECONDS < end)) || {
      warn "Redis did not finish its snapshot within $snapshot_seconds s"
      return 1
    }
    sleep 0.3
  done
}

# A snapshot begins with its magic, and its end mark stands before a checksum of eight bytes.
whole_snapshot() {
  [[ $(head -c 5 "$1") == REDIS && $(tail -c 9 "$1" | head -c 1 | od -A n -t x1) == *ff* ]] || {
    warn "the snapshot of Redis is not complete"
    return 1
  }
}

# append_only_files RDB FOLDER: the snapshot as the base of an append-only log. A Redis that is
# started with an append-only log and finds none begins empty, whatever snapshot lies beside it.
append_only_files() {
  local rdb=$1 folder=$2
  mkdir -p "$folder/appendonlydir"
  cp "$rdb" "$folder/appendonlydir/appendonly.aof.1.base.rdb"
  printf 'file appendonly.aof.1.base.rdb seq 1 type b\n' >"$folder/appendonlydir/appendonly.aof.manifest"
}
