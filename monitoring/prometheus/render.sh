#!/bin/sh
# Writes Prometheus' configuration with the targets of this installation into a folder.
#   PROM_GATEWAYS="gateway-a=host:port …" PROM_ENGINES="vllm-a=host:port …" sh render.sh OUT_DIR
# Also: PROM_DCGM, PROM_ALERTMANAGERS ("name=host:port …"; empty: none), PROM_SELF (host:port).
set -eu

out=${1:?usage: render.sh OUT_DIR}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out/rules" "$out/targets"

# One list of name=host:port becomes a file of targets; `instance` is the name.
targets() {
  first=yes
  printf '['
  for pair in $1; do
    case $pair in
      ?*=?*:?*) ;;
      *) echo "render.sh: '$pair' is not name=host:port" >&2; exit 2 ;;
    esac
    [ "$first" = yes ] || printf ','
    first=no
    printf '\n  {"targets": ["%s"], "labels": {"instance": "%s"}}' "${pair#*=}" "${pair%%=*}"
  done
  printf '\n]\n'
}

targets "${PROM_GATEWAYS:-}" > "$out/targets/gateway.json"
targets "${PROM_ENGINES:-}" > "$out/targets/vllm.json"
targets "${PROM_DCGM:-}" > "$out/targets/dcgm.json"
targets "${PROM_ALERTMANAGERS:-}" > "$out/targets/alertmanager.json"
cp "$here"/rules/*.rules.yaml "$out/rules/"
sed "s|localhost:9090|${PROM_SELF:-localhost:9090}|" "$here/prometheus.yml" > "$out/prometheus.yml"
