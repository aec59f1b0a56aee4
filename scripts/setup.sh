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
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/secrets.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/preflight.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/weights.sh"

weights=hf hosts=() https_port='' http_port='' cpu='' start=1
compose=(docker compose --project-directory "$root")

main() {
  parse "$@"
  preflight "${cpu:-}" "${https_port:-443}" "${http_port:-80}"
  print_plan
  [[ -n ${dry_run:-} ]] && exit 0
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
      --weights) weights=${2:?--weights needs a source}; shift ;;
      --host) hosts+=("${2:?--host needs a name}"); shift ;;
      --https-port) https_port=${2:?--https-port needs a number}; shift ;;
      --http-port) http_port=${2:?--http-port needs a number}; shift ;;
      --cpu) cpu=1 ;;
      --no-start) start='' ;;
      --dry-run) dry_run=1 ;;
      --help | -h) usage; exit 0 ;;
      *) die 2 "unknown option: $1" "" "scripts/setup.sh --help" ;;
    esac
    shift
  done
  local port
  for port in "${https_port:-443}" "${http_port:-80}"; do
    [[ $port =~ ^[1-9][0-9]{0,4}$ && $port -lt 65536 ]] ||
      die 2 "not a port: $port" "a number from 1 to 65535" "--https-port 8443"
  done
  hosts+=("$(hostname)" localhost 127.0.0.1)
}

print_plan() {
  say "plan: settings in .env, secrets/, certificates/ for ${hosts[*]}"
  say "      weights from $weights into $(read_setting MODEL_DIR)"
  [[ -n $start ]] && say "      then build and start with docker compose"
  return 0
}

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
  put VLLM_CPUS "$(least 8 "$(nproc)")"
  put TANDEM_SETUP ''
  if [[ -n $cpu ]]; then
    put COMPOSE_FILE compose.yaml:vllm/compose.cpu.yaml
  else
    put_gpus
  fi
  mv "$root/.env.partial" "$root/.env"
}

least() {
  if (($1 < $2)); then printf '%s\n' "$1"; else printf '%s\n' "$2"; fi
}

# UUIDs, because an index moves when a card drops out.
put_gpus() {
  local -a uuids
  mapfile -t uuids < <(nvidia-smi --query-gpu=uuid --format=csv,noheader)
  put VLLM_A_GPU_0 "${uuids[0]}"
  put VLLM_A_GPU_1 "${uuids[1]}"
  put VLLM_B_GPU_0 "${uuids[2]}"
  put VLLM_B_GPU_1 "${uuids[3]}"
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

# Last of all: without it `docker compose up` refuses.
finish_settings() {
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
