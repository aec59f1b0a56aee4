#!/bin/sh
# Writes Alertmanager's configuration into a folder. Without ALERT_MAIL_TO alerts are only shown.
#   ALERT_MAIL_TO ALERT_MAIL_FROM ALERT_SMTP_HOST (host:port) ALERT_SMTP_USER
#   ALERT_PASSWORD_FILE (default /run/secrets/smtp_password)
set -eu

out=${1:?usage: render.sh OUT_DIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

if [ -z "${ALERT_MAIL_TO:-}" ]; then
  sed '/^#mail/d; /^# Filled/d' "$here/alertmanager.yml.template" > "$out/alertmanager.yml"
  exit 0
fi

for value in "$ALERT_MAIL_TO" "${ALERT_MAIL_FROM:-$ALERT_MAIL_TO}" "${ALERT_SMTP_USER:-}" \
  "${ALERT_SMTP_HOST:?ALERT_MAIL_TO is set, so ALERT_SMTP_HOST must be host:port}"; do
  case $value in
    *[\"\|\\\&]*) echo "render.sh: a mail setting holds one of \" | \\ &" >&2; exit 2 ;;
  esac
done
sed -e 's/^#mail//' \
  -e "s|@MAIL_TO@|$ALERT_MAIL_TO|" \
  -e "s|@MAIL_FROM@|${ALERT_MAIL_FROM:-$ALERT_MAIL_TO}|" \
  -e "s|@SMTP_HOST@|$ALERT_SMTP_HOST|" \
  -e "s|@SMTP_USER@|${ALERT_SMTP_USER:-}|" \
  -e "s|@PASSWORD_FILE@|${ALERT_PASSWORD_FILE:-/run/secrets/smtp_password}|" \
  "$here/alertmanager.yml.template" > "$out/alertmanager.yml"
