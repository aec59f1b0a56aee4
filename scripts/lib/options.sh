# shellcheck shell=bash
# Reading a command line. Sourced; needs lib/common.sh.

# needs_value "$@": the option that comes first has a value behind it.
needs_value() {
  [[ -n ${2:-} ]] || die 2 "$1 needs a value" "nothing behind it" "scripts/$(basename -- "$0") --help"
}

# known_options "--flag …" "--option …" "$@": stops at an option that is among neither; those of the
# second list take a value. For scripts that hand their command line to a program.
known_options() {
  local flags=" $1 " valued=" $2 "
  shift 2
  while (($#)); do
    if [[ $1 == -* && $valued == *" $1 "* ]]; then
      needs_value "$@"
      shift
    elif [[ $1 == -* && $flags != *" $1 "* ]]; then
      die 2 "unknown option: $1" "" "scripts/$(basename -- "$0") --help"
    fi
    shift
  done
}
