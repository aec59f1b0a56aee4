# shellcheck shell=bash
# Programs that come from the machine's packages. Sourced; needs lib/common.sh.
#
# As root on Debian they are installed; else what is missing is said, with the command that mends it.

PATH=$PATH:/usr/sbin:/sbin

# need_programs PROGRAM:PACKAGE…: all of them, or exit 4.
need_programs() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0
  install_packages "${missing[@]}"
}

# want_programs PROGRAM:PACKAGE…: where they can be installed; else a warning.
want_programs() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0
  if may_install; then
    install_packages "${missing[@]}"
  else
    warn "not installed, so left out: ${missing[*]}"
  fi
}

missing_packages() {
  local pair
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || printf '%s\n' "${pair##*:}"
  done
}

may_install() {
  [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null
}

# install_packages PACKAGE…: none of them starts a service of its own.
install_packages() {
  may_install ||
    die 4 "programs are missing" "not installed: $*" "sudo apt-get install $*, or run this as root"
  (
    exec 8>/var/lock/tandem-packages.lock
    flock 8
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
      printf '#!/bin/sh\nexit 101\n' >"$policy"
      chmod 0755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq --no-install-recommends --yes "$@" >/dev/null
  ) >&2
}
