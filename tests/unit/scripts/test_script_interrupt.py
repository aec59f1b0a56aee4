"""Whoever is interrupted ends what it has in hand first: shell scripts, and chaos.sh's faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.unit.scripts.conftest import ROOT, Machine, clean_environment

WAIT_SECONDS = 30
SCRIPT = """
set -Eeuo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"
trap 'echo end' EXIT
interruptible python3 -c "$PROGRAM" || exit $?
"""
PROGRAM = """
import signal, time
ended = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *given: ended.append(given))
print("ready", flush=True)
while not ended:
    time.sleep(0.02)
time.sleep(0.3)
print("put back", flush=True)
raise SystemExit(130)
"""
# One fault, which needs a second to be undone, and only then a look at the service.
CHAOS = """
import asyncio, sys, time
from scripts.chaos import __main__ as chaos
def hold():
    print("ready", flush=True)
    try:
        time.sleep(1)
    finally:
        print("put back", flush=True)
async def trial(instance, *rest):
    await asyncio.to_thread(hold)
    await asyncio.to_thread(instance.wait_healthy)
chaos.trial, chaos.service = trial, lambda: None
sys.argv = ["chaos.sh", "--yes", "kill-core"]
raise SystemExit(chaos.main())
"""


def started(command: list[str], **variables: str) -> subprocess.Popen[str]:
    """In a group of its own, once it has said that it is ready."""
    program = subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean_environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    return program


@pytest.mark.parametrize(
    ("number", "all_of_them"),
    # A terminal gives Ctrl-C to all, timeout(1) its TERM; kill(1) only to the one that is named.
    [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)],
)
def test_what_a_script_runs_is_waited_for(
    machine: Machine, number: signal.Signals, all_of_them: bool
) -> None:
    file = machine.root / "scripts" / "one.sh"
    file.write_text(SCRIPT)
    with started(["bash", str(file)], PROGRAM=PROGRAM) as script:
        (os.killpg if all_of_them else os.kill)(script.pid, number)
        said, _ = script.communicate(timeout=WAIT_SECONDS)
    assert (said, script.returncode) == ("put back\nend\n", 130)


def test_the_exit_code_is_the_programs(machine: Machine) -> None:
    lines = "code=0; interruptible bash -c 'exit 9' || code=$?; echo $code; trap -p TERM"
    assert machine.bash(lines).stdout == "9\ntrap -- 'exit 130' SIGTERM\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_fault_is_undone_however_often_one_asks(number: signal.Signals) -> None:
    with started([sys.executable, "-c", CHAOS]) as chaos:
        assert chaos.stderr is not None
        chaos.send_signal(number)
        first = chaos.stderr.readline()
        chaos.send_signal(number)
        said, more = chaos.communicate(timeout=WAIT_SECONDS)
    assert (said, chaos.returncode) == ("put back\n", 130)
    assert first.startswith("interrupted: ") and more == ""
