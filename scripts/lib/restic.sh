# shellcheck shell=bash
# The backup's target and its password. Sourced; needs lib/common.sh, lib/secrets.sh.
#
# BACKUP_TARGET is any address that restic understands (a folder, sftp:, s3:, rest:, …); the
# credentials of object stores come from the environment, as restic documents them.

# use_target ADDRESS: for all restic calls that follow.
use_target() {
  local target=${1:-${BACKUP_TARGET:-}}
  [[ -n $target || ! -f ${root:?}/.env ]] || target=$(sed -n 's/^BACKUP_TARGET=//p' "$root/.env" | tail -n 1)
  command -v restic >/dev/null || die 4 "restic is missing" "" "sudo apt-get install restic"
  [[ -n $target ]] || die 2 "no target for backups" "BACKUP_TARGET is empty" "BACKUP_TARGET=/mnt/backup in .env, or --target"
  export RESTIC_REPOSITORY=$target
  if [[ -z ${RESTIC_PASSWORD_FILE:-} ]]; then
    export RESTIC_PASSWORD_FILE=${secrets_dir:?}/restic_password
  fi
  [[ -s $RESTIC_PASSWORD_FILE ]] ||
    die 4 "the backup's password is missing" "$(basename -- "$RESTIC_PASSWORD_FILE")" \
      "scripts/setup.sh makes one; for a restore, put back the one you keep elsewhere (RESTIC_PASSWORD_FILE)"
}

# make_password: for a try instance, whose secrets nobody set up.
make_password() {
  [[ ${mode:?} == try && -z ${RESTIC_PASSWORD_FILE:-} ]] || return 0
  make_secrets_dir
  random_text 24 | write_secret restic_password
}

# repository_opens: there is one, and the password fits.
repository_opens() {
  restic --quiet cat config >/dev/null 2>&1
}

# One that a broken run left; a lock of a run that is alive stays.
remove_stale_locks() {
  restic --quiet unlock
}
