# shellcheck shell=bash
# Checks the machine before anything is changed, and lists all problems at once. Sourced.

problems=()

# problem WHAT FIX
problem() {
  problems+=("$1"$'\n'"      fix: $2")
}

# preflight CPU HTTPS_PORT HTTP_PORT: CPU empty means that GPUs are needed.
preflight() {
  local cpu=$1
  check_docker
  check_ports "$2" "$3"
  check_disk "$cpu"
  check_commands
  [[ -n $cpu ]] || check_gpus
  ((${#problems[@]} == 0)) && return
  printf 'The machine is not ready; nothing was changed.\n' >&2
  local one
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
  [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

check_ports() {
  local port
  for port in "$@"; do
    if port_taken "$port" && ! ours_listens; then
      problem "port $port is taken" "stop what listens there, or choose another: --https-port 8443 --http-port 8080"
    fi
  done
}

port_taken() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

ours_listens() {
  [[ -n $(docker compose --project-directory "${root:?}" ps --quiet nginx 2>/dev/null) ]]
}

check_disk() {
  local needed=60 free
  [[ -n $1 ]] && needed=5
  free=$(df --output=avail -BG "${root:?}" | tail -n 1 | tr -dc 0-9)
  ((free >= needed)) || problem "$free GB of disk are free here" "at least $needed GB are needed"
}

check_commands() {
  local name
  for name in openssl curl flock; do
    command -v "$name" >/dev/null || problem "$name is missing" "sudo apt-get install $name"
  done
}

check_gpus() {
  if ! command -v nvidia-smi >/dev/null; then
    problem "the NVIDIA driver is missing (no nvidia-smi)" "install driver 580 or newer; without GPUs: --cpu"
    return
  fi
  local count driver memory
  count=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | wc -l)
  ((count >= 4)) || problem "$count GPUs answer, four are needed" "look at nvidia-smi; without GPUs: --cpu"
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
  at_least "${driver:-0}" 580 || problem "driver ${driver:-unknown} is too old" "580 or newer is needed (CUDA 13)"
  memory=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | sort -n | head -n 1)
  ((${memory:-0} >= 22000)) || problem "the smallest GPU has ${memory:-0} MiB" "24 GB are needed; smaller: VLLM_PROFILE=qwen2.5-7b-awq.yaml"
  docker info --format '{{json .Runtimes}}' 2>/dev/null | grep -q nvidia ||
    problem "Docker does not know the NVIDIA runtime" "install nvidia-container-toolkit, then: sudo nvidia-ctk runtime configure && sudo systemctl restart docker"
}
