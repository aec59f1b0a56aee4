# shellcheck shell=bash
# Reading a command line. Sourced; needs lib/common.sh.

# needs_value "$@": the option that comes first has a value behind it.
needs_value() {
  [[ -n ${2:-} ]] || die 2 "$1 needs a value" "nothing behind it" "${0#"${root:?}"/} --help"
}
