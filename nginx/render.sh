#!/bin/sh
# Write the door's configuration from nginx/templates into a folder.
#
# Usage: nginx/render.sh OUT_DIR        then: nginx -p OUT_DIR -c OUT_DIR/nginx.conf -g 'daemon off;'
#
# Needed:  NGINX_GATEWAYS="gateway-a:8080 gateway-b:8080"  NGINX_CERT  NGINX_KEY
#          NGINX_WEB_ROOT  the built page     NGINX_TMP  a writable folder for pid and temporary files
# Free:    NGINX_HTTPS_PORT=8443  NGINX_HTTP_PORT=8080  NGINX_PUBLIC_PORT=<HTTPS port>
#          NGINX_ADDRESS=0.0.0.0  NGINX_LOG=/dev/stdout  NGINX_CONNECTIONS_PER_ADDRESS=1024
#          NGINX_RESOLVER=        name server; then gateways are looked up again while it runs (nginx >= 1.27.3)
#          NGINX_GRAFANA=         host:port; without it /grafana/ is 404
# Exit:    0 written · 2 a value is missing or not usable
set -eu

templates=$(CDPATH='' cd -- "$(dirname -- "$0")/templates" && pwd)
names="OUT TMP CERT KEY WEB_ROOT LOG ADDRESS HTTPS_PORT HTTP_PORT PUBLIC_PORT CONNECTIONS_PER_ADDRESS
USER_LINE HTTP2_LINE LISTEN_HTTP2 GRAFANA GRAFANA_LINE"

fail() {
  echo "nginx/render.sh: $1" >&2
  exit 2
}

defaults() {
  : "${NGINX_GATEWAYS:?set it, as in NGINX_GATEWAYS=\"gateway-a:8080 gateway-b:8080\"}"
  : "${NGINX_CERT:?set it to the certificate}" "${NGINX_KEY:?set it to the key of the certificate}"
  : "${NGINX_WEB_ROOT:?set it to the folder of the built page}" "${NGINX_TMP:?set it to a writable folder}"
  : "${NGINX_HTTPS_PORT:=8443}" "${NGINX_HTTP_PORT:=8080}" "${NGINX_ADDRESS:=0.0.0.0}"
  : "${NGINX_PUBLIC_PORT:=$NGINX_HTTPS_PORT}" "${NGINX_LOG:=/dev/stdout}"
  : "${NGINX_CONNECTIONS_PER_ADDRESS:=1024}" "${NGINX_RESOLVER:=}" "${NGINX_GRAFANA:=}"
  NGINX_OUT=$out
}

# What differs between nginx 1.22 and today's: http2 became a directive of its own in 1.25.1.
fit_to_version() {
  version=$(PATH="$PATH:/usr/sbin" nginx -v 2>&1 | sed -n 's|.*nginx/\([0-9]*\)\.\([0-9]*\)\.\([0-9]*\).*|\1 \2 \3|p')
  [ -n "$version" ] || fail "nginx is not installed: its version decides how HTTP/2 is written"
  # shellcheck disable=SC2086 # three numbers
  set -- $version
  number=$(($1 * 1000000 + $2 * 1000 + $3))
  NGINX_HTTP2_LINE='http2 on;'
  NGINX_LISTEN_HTTP2=''
  if [ "$number" -lt 1025001 ]; then
    NGINX_HTTP2_LINE=''
    NGINX_LISTEN_HTTP2=' http2'
  fi
  [ -z "$NGINX_RESOLVER" ] || [ "$number" -ge 1027003 ] || fail "NGINX_RESOLVER needs nginx 1.27.3 or newer"
}

# Started by root, workers keep root's rights only where everything else of Tandem has them, too
# (scripts/try.sh as root); the image does not start it as root.
fit_to_caller() {
  NGINX_USER_LINE=''
  if [ "$(id -u)" = 0 ]; then NGINX_USER_LINE='user root;'; fi
  NGINX_GRAFANA_LINE=''
  if [ -n "$NGINX_GRAFANA" ]; then NGINX_GRAFANA_LINE="include $out/grafana.conf;"; fi
}

# Both gateways are listed twice. A gateway that failed gets one request per fail_timeout until
# that one has ended, and our answers are long; should the other fail meanwhile, the second
# listing still reaches whoever is back.
upstream() {
  resolve=''
  if [ -n "$NGINX_RESOLVER" ]; then
    resolve=' resolve'
    echo "resolver $NGINX_RESOLVER valid=2s ipv6=off;"
    echo "resolver_timeout 2s;"
  fi
  echo "upstream gateways {"
  echo "    zone gateways 256k;"
  for gateway in $NGINX_GATEWAYS; do
    echo "    server $gateway max_fails=2 fail_timeout=3s$resolve;"
  done
  for gateway in $NGINX_GATEWAYS; do
    echo "    server $gateway max_fails=0 backup$resolve;"
  done
  echo "    keepalive 64;"
  echo "    keepalive_requests 100000;"
  # Shorter than a gateway keeps an idle connection (75 s; 3 s while it stops): no request meets
  # a connection that is just being closed.
  echo "    keepalive_timeout 2s;"
  echo "}"
}

# ${NGINX_…} in a template becomes the value; nginx's own $variables stay.
substitute() {
  program=''
  for name in $names; do
    eval "value=\$NGINX_$name"
    # shellcheck disable=SC2154 # set by the eval
    case $value in *'
'*) fail "NGINX_$name has a line break" ;; esac
    escaped=$(printf '%s' "$value" | sed 's/[\\&|]/\\&/g')
    program="$program;s|\\\${NGINX_$name}|$escaped|g"
  done
  sed "${program#;}" "$1"
}

[ $# -eq 1 ] || fail "usage: nginx/render.sh OUT_DIR"
mkdir -p "$1"
out=$(CDPATH='' cd -- "$1" && pwd)
defaults
fit_to_version
fit_to_caller
mkdir -p "$NGINX_TMP"
for template in "$templates"/*.conf.template; do
  name=$(basename "$template" .template)
  substitute "$template" >"$out/$name"
done
upstream >"$out/upstream.conf"
