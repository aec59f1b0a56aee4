# shellcheck shell=bash
# Starts the door of a try instance in the place of one that was killed. Run by the supervisor, in
# the instance's folder `run`, with Nginx's own arguments.
#
# A master that is killed leaves its workers, and they hold its ports. SIGQUIT has them let go of
# the ports at once and finish their answers. Nothing but this instance's Nginx works in the folder.
set -euo pipefail

for process in /proc/[0-9]*; do
  [[ $(cat "$process/comm" 2>/dev/null || true) == nginx ]] || continue
  [[ $(readlink "$process/cwd" 2>/dev/null || true) == "$PWD" ]] || continue
  kill -s QUIT "${process##*/}" 2>/dev/null || true
done
exec nginx "$@"
