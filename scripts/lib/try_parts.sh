# shellcheck shell=bash disable=SC2154,SC2034 # shared with the files sourced beside it
# Writes what the parts of a try instance read: secrets, certificate, configurations. Sourced.
#
# Everything lies in the instance's folder and is written anew at each start, except secrets,
# certificate and data. Needs lib/common.sh, lib/secrets.sh, lib/try_install.sh, lib/instance.sh.

base=${TRY_PORT_BASE:-8440}
https_port=$base http_port=$((base + 1)) gateway_a_port=$((base + 2)) gateway_b_port=$((base + 3))
vllm_a_port=$((base + 4)) vllm_b_port=$((base + 5)) redis_port=$((base + 6))
prometheus_port=$((base + 7)) supervisor_port=$((base + 8))
model_name=tandem-tiny

write_parts() {
  mkdir -p "$try_dir"/{run,logs,redis,engines,prometheus}
  chmod 0700 "$try_dir"
  write_keys
  write_certificate
  write_redis
  write_door
  write_prometheus
  write_supervisor
}

write_keys() {
  make_secrets_dir
  random_text 24 | write_secret redis_password
  random_text 24 | write_secret supervisor_password
  touch "$secrets_dir/api_keys"
  local name
  for name in try other; do
    [[ -s $secrets_dir/$name.key ]] && grep -q "^$name " "$secrets_dir/api_keys" && continue
    sed -i "/^$name /d" "$secrets_dir/api_keys"
    (umask 077 && add_key "$name" >"$secrets_dir/$name.key")
  done
}

write_certificate() {
  local folder=$try_dir/certificates
  openssl x509 -in "$folder/tls.crt" -noout -checkend 86400 >/dev/null 2>&1 || rm -f "$folder"/tls.*
  make_certificate "$folder" localhost 127.0.0.1
}

# The password is in a file, not in a command line.
write_redis() {
  (umask 077 && cat >"$try_dir/redis.conf") <<END
port $redis_port
bind 127.0.0.1
dir "$try_dir/redis"
requirepass $(cat "$secrets_dir/redis_password")
appendonly yes
appendfsync everysec
save ""
maxmemory 256mb
maxmemory-policy noeviction
set-proc-title no
END
}

write_door() {
  NGINX_GATEWAYS="127.0.0.1:$gateway_a_port 127.0.0.1:$gateway_b_port" NGINX_RESOLVER='' NGINX_GRAFANA='' \
    NGINX_ADDRESS=127.0.0.1 NGINX_HTTPS_PORT=$https_port NGINX_HTTP_PORT=$http_port \
    NGINX_CERT=$try_dir/certificates/tls.crt NGINX_KEY=$try_dir/certificates/tls.key \
    NGINX_WEB_ROOT=$page NGINX_LOG=$try_dir/logs/nginx.log NGINX_TMP=$try_dir/nginx-run \
    "$root/nginx/render.sh" "$try_dir/nginx"
}

# Prometheus is there where it is installed.
write_prometheus() {
  has_prometheus || return 0
  PROM_GATEWAYS="gateway-a=127.0.0.1:$gateway_a_port gateway-b=127.0.0.1:$gateway_b_port" \
    PROM_ENGINES="vllm-a=127.0.0.1:$vllm_a_port vllm-b=127.0.0.1:$vllm_b_port" \
    PROM_SELF=127.0.0.1:$prometheus_port sh "$root/monitoring/prometheus/render.sh" "$try_dir/prometheus"
}

has_prometheus() {
  command -v prometheus >/dev/null
}

write_supervisor() {
  (umask 077 && supervisor_sections >"$try_dir/supervisord.conf")
}

supervisor_sections() {
  supervisor_head
  program redis 100 15 "" "$(command -v redis-server)" "$try_dir/redis.conf"
  engine vllm-a "$vllm_a_port"
  engine vllm-b "$vllm_b_port"
  gateway gateway-a "$gateway_a_port"
  gateway gateway-b "$gateway_b_port"
  program nginx 400 15 "" "$BASH" "$root/scripts/lib/start_door.sh" \
    -p "$try_dir/nginx" -c "$try_dir/nginx/nginx.conf" -g 'daemon off;'
  has_prometheus || return 0
  program prometheus 500 15 "" "$(command -v prometheus)" "--config.file=$try_dir/prometheus/prometheus.yml" \
    "--storage.tsdb.path=$try_dir/prometheus/data" --storage.tsdb.retention.time=2d \
    "--web.listen-address=127.0.0.1:$prometheus_port"
}

supervisor_head() {
  local password
  password=$(cat "$secrets_dir/supervisor_password")
  cat <<END
[supervisord]
logfile=$(escaped "$try_dir/logs/supervisord.log")
logfile_maxbytes=5MB
pidfile=$(escaped "$try_dir/supervisord.pid")
childlogdir=$(escaped "$try_dir/logs")

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[inet_http_server]
port=127.0.0.1:$supervisor_port
username=try
password=$password

[supervisorctl]
serverurl=http://127.0.0.1:$supervisor_port
username=try
password=$password

END
}

engine() {
  local -a more
  read -ra more <<<"${TRY_ENGINE_ARGS:-}" # further arguments of vLLM, for chaos.sh --soak
  local variables="ENGINE_HOST=127.0.0.1|ENGINE_PORT=$2|MODEL_PATH=$model|STATE_DIR=$try_dir/engines"
  # Tests kill engines: one that has answered for a moment is no failed start. And engines compute
  # on the cores that the door and the gateways need in time: they stand back.
  variables+="|SETTLED_SECONDS=5|REST_SECONDS=3|ENGINE_NICE=10"
  variables+="|PYTHONPATH=$root/vllm/shared_cores:$root/vllm/cpu_plugin"
  program "$1" 200 60 "$variables" \
    "$vllm_python" "$root/vllm/serve.py" --profile "$root/vllm/profiles/tiny.yaml" --name "$1" "${more[@]}"
}

gateway() {
  local variables="GATEWAY_NAME=$1|GATEWAY_HOST=127.0.0.1|GATEWAY_PORT=$2|MODEL_NAME=$model_name"
  variables+="|ENGINES=vllm-a=http://127.0.0.1:$vllm_a_port,vllm-b=http://127.0.0.1:$vllm_b_port"
  variables+="|REDIS_URL=redis://127.0.0.1:$redis_port/0|SECRETS_DIR=$secrets_dir"
  variables+="|PYTHONPATH=$root|PYTHONUNBUFFERED=1"
  program "$1" 300 130 "$variables" \
    "$gateway_python" -m gateway
}

# program NAME PRIORITY STOP_SECONDS "NAME=VALUE|…" COMMAND…
program() {
  local name=$1 priority=$2 seconds=$3 variables=$4 command='' argument
  shift 4
  for argument in "$@"; do command+=" \"$(escaped "$argument")\""; done
  cat <<END
[program:$name]
command=${command# }
directory=$(escaped "$try_dir/run")
environment=$(environment_of "$variables")
priority=$priority
autorestart=true
startretries=100
stopsignal=$([[ $name == nginx ]] && echo QUIT || echo TERM)
stopwaitsecs=$seconds
stopasgroup=true
killasgroup=true
stdout_logfile=$(escaped "$try_dir/logs/$name.log")
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
redirect_stderr=true

END
}

environment_of() {
  local pair line=''
  local -a pairs
  IFS='|' read -ra pairs <<<"$1"
  for pair in "${pairs[@]}"; do line+=",${pair%%=*}=\"$(escaped "${pair#*=}")\""; done
  printf '%s' "${line#,}"
}

# supervisord expands % in its configuration.
escaped() {
  printf '%s' "${1//%/%%}"
}
