"""A script that is ended waits for its program, which may have something to put back."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.unit.scripts.conftest import Machine, clean_environment

WAIT_SECONDS = 30
PROGRAM = """
import time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)
    print("put back", flush=True)
    raise SystemExit(130)
"""
SCRIPT = """
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
trap 'echo end' EXIT
interruptible python3 -c "$PROGRAM" || exit $?
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_what_it_runs_is_interrupted_and_waited_for(machine: Machine, how: signal.Signals) -> None:
    script_file = machine.root / "scripts" / "one.sh"
    script_file.write_text(SCRIPT)
    script = subprocess.Popen(
        ["bash", str(script_file)],
        env=clean_environment() | machine.variables | {"PROGRAM": PROGRAM},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with script:
        assert script.stdout is not None
        assert script.stdout.readline() == "ready\n"
        # A terminal gives Ctrl-C to all of them.
        (os.killpg if how == signal.SIGINT else os.kill)(script.pid, how)
        said, _ = script.communicate(timeout=WAIT_SECONDS)
    assert (said, script.returncode) == ("put back\nend\n", 130)


def test_the_exit_code_is_the_programs(machine: Machine) -> None:
    lines = "code=0; interruptible bash -c 'exit 9' || code=$?; echo $code; trap -p TERM"
    assert machine.bash(lines).stdout == "9\ntrap -- 'exit 130' SIGTERM\n"
