#!/usr/bin/env bash
# Set the appliance up on this machine, once: checks, settings, secrets, certificate, weights, start.
#
# Usage: scripts/setup.sh [options]
#
#   --weights SOURCE   hf, hf-mirror, modelscope, an https address of a folder, or a local folder (hf)
#   --host NAME        a name or address by which clients reach this machine (repeatable)
#   --https-port N     published port (443)          --http-port N   its redirect (80)
#   --cpu              no GPUs: engines on the CPU, with the model in MODEL_DIR
#   --no-start         do not build and start
#   --dry-run          only check and print the plan
#
# Every problem is listed with its mend before anything is changed. A second run keeps what is
# there: settings, secrets, keys, certificate, complete weight files.
#
# Exit: 0 done · 1 failed · 2 usage · 4 a check failed, nothing changed · 7 another script runs
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/options.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/instance.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/secrets.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/weights.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/preflight.sh"

weights=hf hosts=() https_port='' http_port='' cpu='' start=1 first_key=''

main() {
  parse "$@"
  [[ $(read_setting COMPOSE_FILE) == *compose.cpu.yaml* ]] && cpu=1
  preflight "$cpu" "$weights" "${https_port:-$(read_setting HTTPS_PORT)}" "${http_port:-$(read_setting HTTP_PORT)}"
  print_plan
  [[ -n $dry_run ]] && exit 0
  take_lock operate
  step "settings" write_settings
  step "secrets" write_secrets
  step "certificate" make_certificate "$root/certificates" "${hosts[@]}"
  fetch_weights "$weights" "$(read_setting MODEL_DIR)"
  finish_settings
  [[ -n $start ]] && start_appliance
  report
}

parse() {
  while (($#)); do
    case $1 in
      --weights) needs_value "$@"; weights=$2; shift ;;
      --host) needs_value "$@"; hosts+=("$2"); shift ;;
      --https-port) needs_value "$@"; https_port=$2; shift ;;
      --http-port) needs_value "$@"; http_port=$2; shift ;;
      --cpu) cpu=1 ;;
      --no-start) start='' ;;
      --dry-run) dry_run=1 ;;
      --help | -h) usage; exit 0 ;;
      *) die 2 "unknown option: $1" "" "scripts/setup.sh --help" ;;
    esac
    shift
  done
  check_port "${https_port:-443}"
  check_port "${http_port:-80}"
  # A folder is meant from where the caller stands.
  [[ -d $weights ]] && weights=$(realpath -- "$weights")
  hosts+=("$(hostname)" localhost 127.0.0.1)
}

check_port() {
  [[ $1 =~ ^[1-9][0-9]{0,4}$ && $1 -lt 65536 ]] ||
    die 2 "not a port: $1" "a number from 1 to 65535" "--https-port 8443"
}

print_plan() {
  say "plan: settings in .env, secrets/, certificates/ for ${hosts[*]}"
  say "      weights from $weights into $(read_setting MODEL_DIR)"
  [[ -n $start ]] && say "      then build and start with docker compose"
  return 0
}

# read_setting NAME: of the settings there are, else of those there will be.
read_setting() {
  local file=$root/.env
  [[ -f $file ]] || file=$root/.env.example
  sed -n "s/^$1=//p" "$file" | tail -n 1
}

# put NAME VALUE: into .env.partial, in its place.
put() {
  local escaped
  escaped=$(printf '%s' "$2" | sed 's/[&|\\]/\\&/g')
  if grep -q "^$1=" "$root/.env.partial"; then
    sed -i "s|^$1=.*|$1=$escaped|" "$root/.env.partial"
  else
    printf '%s=%s\n' "$1" "$2" >>"$root/.env.partial"
  fi
}

write_settings() {
  cp "$root/.env.example" "$root/.env.partial"
  [[ -f $root/.env ]] && cp "$root/.env" "$root/.env.partial"
  [[ -n $https_port ]] && put HTTPS_PORT "$https_port"
  [[ -n $http_port ]] && put HTTP_PORT "$http_port"
  put VLLM_CPUS "$(least "$(read_setting VLLM_CPUS)" "$(cores_for_one)")"
  if [[ -n $cpu ]]; then
    put COMPOSE_FILE compose.yaml:vllm/compose.cpu.yaml
  else
    put_gpus
  fi
  mv "$root/.env.partial" "$root/.env"
}

# Without GPUs the two engines share the cores: more threads than cores make both many times slower.
cores_for_one() {
  local cores
  cores=$(nproc)
  if [[ -n $cpu ]] && ((cores > 1)); then cores=$((cores / 2)); fi
  printf '%s\n' "$cores"
}

least() {
  if ((${1:-8} < $2)); then printf '%s\n' "${1:-8}"; else printf '%s\n' "$2"; fi
}

# UUIDs, because an index moves when a card drops out. Cards that were chosen stay while all four
# are there.
put_gpus() {
  local -a uuids names=(VLLM_A_GPU_0 VLLM_A_GPU_1 VLLM_B_GPU_0 VLLM_B_GPU_1)
  local name known=0 number
  mapfile -t uuids < <(gpus_say uuid)
  for name in "${names[@]}"; do
    [[ " ${uuids[*]} " == *" $(read_setting "$name") "* ]] && known=$((known + 1))
  done
  ((known == 4)) && return
  for number in 0 1 2 3; do
    put "${names[number]}" "${uuids[number]}"
  done
}

write_secrets() {
  make_secrets_dir
  random_text 24 | write_secret redis_password
  random_text 16 | write_secret grafana_admin_password
  random_text 24 | write_secret restic_password
  [[ -e $secrets_dir/smtp_password ]] || (umask 077 && : >"$secrets_dir/smtp_password")
  chmod 0444 "$secrets_dir/smtp_password"
  [[ -s $secrets_dir/api_keys ]] || first_key=$(add_key admin)
}

# Last of all: without it `docker compose up` refuses. A later run keeps the first day, or the door
# would be made anew for nothing.
finish_settings() {
  [[ -n $(read_setting TANDEM_SETUP) ]] && return
  cp "$root/.env" "$root/.env.partial"
  put TANDEM_SETUP "$(date -u +%Y-%m-%d)"
  mv "$root/.env.partial" "$root/.env"
}

start_appliance() {
  step "build" "${compose[@]}" build --quiet
  step "start (loading the weights takes minutes)" "${compose[@]}" up --detach --wait --wait-timeout 1200
}

report() {
  local port
  port=$(read_setting HTTPS_PORT)
  say ""
  say "Tandem is set up.    https://${hosts[0]}$([[ $port == 443 ]] || printf ':%s' "$port")/"
  if [[ -n ${first_key:-} ]]; then
    say "Key (shown once):    $first_key"
  else
    say "Keys:                scripts/keys.sh add NAME"
  fi
  say "Certificate:         certificates/tls.crt (self-signed unless you put yours there)"
  [[ -n $start ]] || say "Start:               docker compose up -d --wait"
  say "Next:                scripts/status.sh · scripts/backup.sh --help"
}

main "$@"
