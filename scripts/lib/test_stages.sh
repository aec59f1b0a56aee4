# shellcheck shell=bash disable=SC2154,SC2034 # shared with the files sourced beside it
# The stages of scripts/test.sh, and what they need on the machine. Sourced by it.

# Seconds that a stage may take.
unit_limit=900 config_limit=600 web_limit=1200 integration_limit=3000 stack_limit=3000

prepare_tests() {
  local -a needed=(curl:curl openssl:openssl git:git)
  if has unit || has config; then needed+=(redis-server:redis-server restic:restic promtool:prometheus); fi
  if has web; then needed+=(chromium:chromium fc-list:fontconfig); fi
  if has web || has integration || has config; then
    needed+=(nginx:nginx-light redis-server:redis-server prometheus:prometheus)
  fi
  if has integration; then needed+=(iptables:iptables faketime:faketime); fi
  if has stack && may_install; then
    needed+=(debootstrap:debootstrap tini-static:tini iptables:iptables runc:runc)
  fi
  require_python
  step "programs" need_programs "${needed[@]}"
  if has web; then step "fonts" need_fonts; fi
  mkdir -p "$cache"
  step "environment of the tests" make_tests_environment
  if has lint || has unit || has web; then step "Node.js" make_node; fi
  if has unit || has integration || has web || has stack; then
    step "environment of the engines" make_engine_environment
    export TANDEM_VLLM_PYTHON=$vllm_python
  fi
  if has web || has integration; then start_instance; fi
}

need_fonts() {
  # fc-list tells no failure from no font.
  [[ -n $(fc-list ':lang=zh' family) ]] || install_packages fonts-noto-cjk
}

make_tests_environment() {
  local python
  python=$(tests_python)
  PATH=${python%/*}:$PATH
  export PATH
}

# For the page's own tests: its packages, in web/, when the lock file is newer than they are.
make_node() {
  PATH=$(node_folder):$PATH
  export PATH
  if [[ ! web/node_modules/.package-lock.json -nt web/package-lock.json ]]; then
    quietly npm ci --prefix web --ignore-scripts --no-audit --no-fund
    touch web/node_modules/.package-lock.json
  fi
}

# One instance for all; when it does not start, the stages that need it fail and say so.
start_instance() {
  local base
  base=$(python -c 'from tests.free_ports import first_of; print(first_of(9))')
  printf '%s\n' "$base" >"$work/port_base"
  export TRY_DIR=$work/instance TRY_PORT_BASE=$base
  printf '· a whole instance …\n' >&2
  "$root/scripts/try.sh" --detach >"$work/try.log" 2>&1 &
  worker=$!
  if wait "$worker"; then
    local variables
    variables=$("$root/scripts/try.sh" --print-env)
    eval "$variables"
  else
    warn "the instance did not start"
    cat "$work/try.log" >&2
  fi
  worker=''
  unset TRY_DIR TRY_PORT_BASE
}

need_instance() {
  [[ -n ${TANDEM_DIR:-} ]] || die 1 "there is no instance to test" "it did not start, see above" "scripts/try.sh"
}

stage_lint() {
  local code=0
  ruff check --quiet . || code=1
  mypy || code=1
  git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck --external-sources --exclude SC2034 || code=1
  npm run --silent --prefix web check || code=1
  return "$code"
}

stage_unit() {
  local code=0
  tests "$unit_limit" tests/unit --numprocesses 2 || code=$?
  limited 300 npm test --silent --prefix web || code=$?
  return "$code"
}

stage_config() {
  tests "$config_limit" tests/config
}

stage_web() {
  need_instance
  tests "$web_limit" tests/web --numprocesses 2
}

# What needs no engine but scripted ones first, two at a time. When pytest is given arguments of its
# own, one of the two parts may have nothing to do, which it says with 5.
stage_integration() {
  local code=0 first=0
  need_instance
  tests "$integration_limit" tests/integration/faults --numprocesses 2 || first=$?
  case $first in 2 | 124 | 130 | 137 | 143) return "$first" ;; esac # interrupted
  tests "$integration_limit" tests/integration --ignore tests/integration/faults || code=$?
  [[ $first == 5 && ${#pytest_arguments[@]} -gt 0 && $code == 0 ]] && first=0
  [[ $code == 5 && ${#pytest_arguments[@]} -gt 0 && $first == 0 ]] && code=0
  ((first)) && return "$first"
  return "$code"
}

stage_stack() {
  tests "$stack_limit" tests/stack
}

# tests SECONDS PATH PYTEST-ARGUMENTS…
tests() {
  local seconds=$1 path=$2
  shift 2
  limited "$seconds" python -m pytest -W error --quiet --durations 5 --durations-min 5 \
    -p no:cacheprovider "$@" "$path" "${pytest_arguments[@]}"
}

# limited SECONDS COMMAND…: interrupted when its time is over, so that it can clean up, and a minute
# later killed.
limited() {
  local seconds=$1
  shift
  interruptible timeout --signal INT --kill-after 60 "$seconds" "$@"
}

# The stage that runs gets what Ctrl-C would give it, and a minute.
end_worker() {
  kill -TERM "$worker" 2>/dev/null || return 0
  local end=$((SECONDS + 75))
  while kill -0 "$worker" 2>/dev/null && ((SECONDS < end)); do sleep 0.2; done
  kill -KILL "$worker" 2>/dev/null || true
}
