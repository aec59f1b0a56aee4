#!/usr/bin/env bash
# Measure the gateway against its peers on this machine, and print one table.
#
# Usage: scripts/bench.sh [--quick] [--rounds N] [--only NAME]… [--write-readme] [SCENARIO…]
#        scripts/bench.sh --affinity [--quick] [--write-readme]
#
#   --quick          half of the work, 1 round; else 5 rounds, of about 3.5 minutes each
#   --only NAME      tandem, nginx, vllm-router, sglang-router, litellm … (repeatable)
#   --affinity       who finds an engine's prefix cache again (two real engines; ≤ 6 minutes)
#   --write-readme   put the tables into the READMEs; only from a full run on a quiet machine
#   SCENARIO         streams crowd burst long-prompts cancels deploy scale
#
# Peers are installed into environments of their own on first use. Results: bench-results/.
# Exit: 0 done · 1 failed · 2 usage · 3 READMEs left alone
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/options.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/environments.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/packages.sh"

main() {
  [[ " $* " == *" --help "* || " $* " == *" -h "* ]] && { usage; exit 0; }
  known_options "--quick --affinity --write-readme" "--rounds --only" "$@"
  cd "$root"
  need_programs redis-server:redis-server nginx:nginx openssl:openssl taskset:util-linux
  local python
  python=$(tests_python)
  exec "$python" -m tests.bench "$@"
}

main "$@"
