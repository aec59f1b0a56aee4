# shellcheck shell=bash
# What every script needs: messages, errors with a mend, dry runs, locks. Sourced first.
#
# Exit codes: 0 done · 1 failed · 2 usage · 3 refused, nothing changed · 4 a check failed
#             5 not running · 6 needs a confirmation · 7 another script runs · 130 interrupted

shopt -s inherit_errexit
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
dry_run=''

trap 'failed $? "${BASH_SOURCE[0]##*/}" "$LINENO" "$BASH_COMMAND"' ERR
trap 'exit 130' INT TERM

failed() {
  # Only the program's name: arguments may hold what must not be in a log.
  printf '%s:%s: %s failed (exit %s)\n' "$2" "$3" "${4%% *}" "$1" >&2
}

# usage: prints the comment at the script's head.
usage() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//;/^[^#]*set -Eeuo/d;p}' "$0" | sed '/^set -Eeuo/d;/^shellcheck /d'
}

say() {
  printf '%s\n' "$*"
}

warn() {
  printf 'warning: %s\n' "$*" >&2
}

# die CODE WHAT FOUND FIX: what went wrong, what was found, how to mend it.
die() {
  trap - ERR
  printf 'error: %s\n' "$2" >&2
  [[ -n ${3:-} ]] && printf 'found: %s\n' "$3" >&2
  [[ -n ${4:-} ]] && printf '  fix: %s\n' "$4" >&2
  exit "$1"
}

# run COMMAND…: or only print it, in a dry run.
run() {
  if [[ -n $dry_run ]]; then
    printf 'would run:'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# interruptible COMMAND…: TERM and INT reach the command as INT, and it is waited for: it may have
# something to put back. From a terminal it may get two. Bash makes background commands deaf to
# SIGINT; env gives them back their ears.
interruptible() {
  local code=0 pid='' ended='' before
  before=$(trap -p INT TERM)
  trap 'ended=1; [[ -z $pid ]] || kill -INT "$pid" 2>/dev/null || true' INT TERM
  env --default-signal=INT "$@" &
  pid=$!
  [[ -z $ended ]] || kill -INT "$pid" 2>/dev/null || true
  wait "$pid" || code=$?
  while kill -0 "$pid" 2>/dev/null; do
    code=0
    wait "$pid" || code=$?
  done
  trap - INT TERM
  eval "$before"
  return "$code"
}

# step WHAT COMMAND…: says what is done and how many seconds it took; passes a failure on. Behind `||`
# bash would go on after a failure inside the command, so only simple commands belong there.
step() {
  local what=$1 began=$SECONDS
  shift
  printf '· %s … ' "$what" >&2
  "$@"
  local code=$?
  ((code == 0)) || printf 'failed after ' >&2
  printf '%s s\n' $((SECONDS - began)) >&2
  return "$code"
}

# quietly COMMAND…: one program, whose output is shown only when it fails.
quietly() {
  local output code=0
  output=$("$@" 2>&1) || code=$?
  ((code == 0)) || printf '%s\n' "$output" >&2
  return "$code"
}

# take_lock NAME: until this script ends; nobody else works under the same name meanwhile.
# A script that calls another one lends it its lock by TANDEM_LOCK_HELD.
take_lock() {
  [[ ${TANDEM_LOCK_HELD:-} == "$1" ]] && return
  local folder=${TRY_DIR:-$root/.locks}
  mkdir -p "$folder"
  exec {lock_handle}>"$folder/$1.lock"
  flock --nonblock "$lock_handle" ||
    die 7 "another script works on this instance" "$folder/$1.lock is held" "wait for its end"
}
