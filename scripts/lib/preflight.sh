# shellcheck shell=bash
# Checks the machine before anything is changed, and lists all problems at once. Sourced; needs
# lib/weights.sh and read_setting.

problems=()

# problem WHAT FIX
problem() {
  problems+=("$1"$'\n'"      fix: $2")
}

# preflight CPU WEIGHTS HTTPS_PORT HTTP_PORT: CPU empty means that GPUs are needed.
preflight() {
  local cpu=$1 one
  check_commands
  check_docker
  check_ports "$3" "$4"
  check_weights_source "$cpu" "$2"
  [[ -n $cpu ]] || check_gpus
  ((${#problems[@]} == 0)) && return
  printf 'The machine is not ready; nothing was changed.\n' >&2
  for one in "${problems[@]}"; do
    printf '  ✗ %s\n' "$one" >&2
  done
  exit 4
}

check_docker() {
  if ! command -v docker >/dev/null; then
    problem "Docker is not installed" "install Docker Engine 25 or newer (docs.docker.com/engine/install)"
    return
  fi
  local engine compose_version
  if ! engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) || [[ -z $engine ]]; then
    problem "the Docker Engine does not answer" "sudo systemctl start docker; or add yourself to the group docker"
  elif ! at_least "$engine" 25; then
    problem "Docker Engine $engine is too old" "25 or newer is needed (health checks with start_interval)"
  fi
  if ! compose_version=$(docker compose version --short 2>/dev/null); then
    problem "Docker Compose is missing" "install the package docker-compose-plugin"
  elif ! at_least "${compose_version#v}" 2.24; then
    problem "Docker Compose $compose_version is too old" "2.24 or newer is needed"
  fi
}

# at_least VERSION WANTED
at_least() {
  [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | sed -n 1p) == "$2" ]]
}

check_ports() {
  local port
  for port in "$@"; do
    if port_taken "$port" && ! door_runs; then
      problem "port $port is taken" "stop what listens there, or choose another: --https-port 8443 --http-port 8080"
    fi
  done
}

port_taken() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Ours may listen there already: a second run.
door_runs() {
  [[ -n $("${compose[@]:?}" ps --quiet nginx 2>/dev/null) ]]
}

# check_weights_source CPU SOURCE: what is not there yet can be had, and there is room for it.
check_weights_source() {
  local folder
  folder=$(weights_folder "$(read_setting MODEL_DIR)")
  [[ -f $folder/.complete ]] && return
  weights_complaint "$folder" >/dev/null || return 0
  case $2 in
    hf | hf-mirror | modelscope)
      [[ -z $1 ]] || problem "there is no model in $folder" "--weights /a/folder, or MODEL_DIR in .env" ;;
    http://* | https://*) ;;
    *) [[ -f $2/config.json ]] || problem "there are no weights in $2" "--weights hf|hf-mirror|modelscope|/a/folder" ;;
  esac
  check_disk "$1" "$folder"
}

# check_disk CPU FOLDER: where the weights go to; the folder itself may not be there yet.
check_disk() {
  local needed=60 free folder=$2
  [[ -n $1 ]] && needed=5
  while [[ ! -d $folder ]]; do folder=$(dirname -- "$folder"); done
  free=$(df --output=avail -BG "$folder" | tail -n 1 | tr -dc 0-9)
  ((free >= needed)) || problem "$free GB of disk are free in $folder" "at least $needed GB are needed"
}

check_commands() {
  local name
  for name in openssl curl flock awk; do
    command -v "$name" >/dev/null || problem "$name is missing" "sudo apt-get install ${name/flock/util-linux}"
  done
}

check_gpus() {
  if ! command -v nvidia-smi >/dev/null; then
    problem "the NVIDIA driver is missing (no nvidia-smi)" "install driver 580 or newer; without GPUs: --cpu"
    return
  fi
  local count driver memory
  count=$(gpus_say name | grep -c . || true)
  if ((count == 0)); then
    problem "nvidia-smi finds no GPU" "look at what nvidia-smi says; without GPUs: --cpu"
    return
  fi
  ((count >= 4)) || problem "$count GPUs answer, four are needed" "look at nvidia-smi; without GPUs: --cpu"
  driver=$(gpus_say driver_version | sed -n 1p)
  at_least "${driver:-0}" 580 || problem "driver ${driver:-unknown} is too old" "580 or newer is needed (CUDA 13)"
  memory=$(gpus_say memory.total | sort -n | sed -n 1p)
  ((${memory:-0} >= 22000)) || problem "the smallest GPU has ${memory:-0} MiB" "24 GB are needed; smaller: VLLM_PROFILE=qwen2.5-7b-awq.yaml in .env"
  check_gpu_runtime
}

# gpus_say FIELD: a line for each GPU; nothing when the driver does not work (it complains there).
gpus_say() {
  local said
  said=$(nvidia-smi --query-gpu="$1" --format=csv,noheader,nounits 2>/dev/null) || return 0
  printf '%s\n' "$said"
}

check_gpu_runtime() {
  command -v docker >/dev/null || return 0
  docker info --format '{{json .Runtimes}}' 2>/dev/null | grep nvidia >/dev/null ||
    problem "Docker does not know the NVIDIA runtime" "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure && sudo systemctl restart docker"
}
