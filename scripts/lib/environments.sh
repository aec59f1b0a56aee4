# shellcheck shell=bash
# Python environments, made once for each lock file and kept in the cache. Sourced.

cache=${TANDEM_CACHE:-$HOME/.cache/tandem}

# environment NAME LOCK: the folder of a virtual environment with exactly what the lock names.
environment() {
  local name=$1 lock=$2 folder
  folder=$cache/$name-$(fingerprint "$lock")
  (
    flock 9
    if [[ ! -f $folder/.complete ]]; then
      rm -rf "$folder"
      python3 -m venv "$folder" >&2
      "$folder/bin/pip" install -qq --disable-pip-version-check --require-hashes --no-deps \
        --requirement "$lock" >&2
      touch "$folder/.complete"
    fi
  ) 9>"$cache/$name.lock"
  printf '%s\n' "$folder"
}

fingerprint() {
  { python3 --version; cat -- "$@"; } | sha256sum | cut -c 1-12
}

tests_python() {
  mkdir -p "$cache"
  printf '%s/bin/python\n' "$(environment tests "${root:?}/tests/requirements.lock")"
}
