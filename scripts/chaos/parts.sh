#!/usr/bin/env bash
# One function of lib/instance.sh or lib/redis.sh on the running instance, for instance.py.
#
# Usage: scripts/chaos/parts.sh FUNCTION [ARGUMENT…]
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib/common.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib/secrets.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib/instance.sh"
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib/redis.sh"

find_instance
use_instance_secrets
"$@"
