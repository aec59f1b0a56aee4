#!/bin/sh
# Render the door's configuration, check it, become nginx. What the image runs.
set -eu

out=/tmp/door
"$(dirname -- "$0")/render.sh" "$out"
nginx -t -q -p "$out" -c "$out/nginx.conf"
exec nginx -p "$out" -c "$out/nginx.conf" -g 'daemon off;'
