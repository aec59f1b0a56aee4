"""The group: its end is seen when it begins, and where cores are shared it stands back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_life import PATIENCE, alive, until

# Its main thread is gone, and another holds the process open for as long as nobody kills it: so
# does a large process that is killed and gives its memory back.
HALF_GONE = """
import ctypes, subprocess, sys, threading, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""
IDLE = "import time; time.sleep(600)"


@pytest.fixture
def started() -> Iterator[list[object]]:
    groups: list[object] = []
    yield groups
    for group in groups:
        group.kill()


def start(started: list[object], code: str, nice: int = 0):
    from process_group import Group

    started.append(Group([sys.executable, "-c", code], dict(os.environ), nice))
    return started[-1]


def test_the_end_of_the_leader_is_seen_when_it_begins(started: list[object]) -> None:
    group = start(started, HALF_GONE)
    assert until(lambda: group.ended() is not None)
    from process_group import members

    assert members(group.pid) == []


@pytest.mark.parametrize(
    ("state", "flags", "began", "dead"),
    [
        ("S", 0x400040, 77, False),
        ("R", 0x400044, 77, True),
        ("Z", 0x400040, 77, True),
        ("S", 0x400040, 78, True),
    ],
    ids=["running", "on its way out", "a zombie", "another under its number"],
)
def test_who_counts_as_dead(
    state: str, flags: int, began: int, dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import process_group

    rest = ["1", "1", "1", "0", "-1", str(flags), *["0"] * 12, str(began)]
    line = f"5 (a name) with) {state} {' '.join(rest)} 0 0"
    monkeypatch.setattr(Path, "read_text", lambda _: line)
    assert process_group._is_dead(5, 77) is dead


def test_an_engine_on_shared_cores_stands_back_with_all_that_it_starts(
    started: list[object],
) -> None:
    group = start(started, HALF_GONE.replace("ctypes.CDLL(None).pthread_exit(None)", ""), nice=5)
    from process_group import members

    until(lambda: len(members(group.pid)) == 2)
    assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in members(group.pid)] == [5, 5]
    session = Path(f"/proc/{group.pid}/autogroup")
    if session.exists():  # a kernel without autogroups has no such file
        assert session.read_text().endswith("nice 5\n")


def test_alone_on_its_cores_it_does_not(started: list[object]) -> None:
    group = start(started, IDLE)
    assert os.getpriority(os.PRIO_PROCESS, group.pid) == os.getpriority(os.PRIO_PROCESS, 0)


def test_the_dying_are_not_held_up() -> None:
    """Nothing but the session's own niceness can be taken back without privileges."""
    import niceness

    idle = subprocess.Popen([sys.executable, "-c", IDLE], start_new_session=True)
    try:
        niceness.stand_back(idle.pid, 5)
        session = Path(f"/proc/{idle.pid}/autogroup")

        def taken_back() -> bool:
            niceness.hurry(idle.pid)  # without privileges the kernel takes ten of these a second
            return not session.exists() or session.read_text().endswith("nice 0\n")

        until(taken_back)
        assert alive(idle.pid)
    finally:
        idle.kill()
        idle.wait(PATIENCE)


def test_nothing_is_said_of_a_process_that_has_gone() -> None:
    import niceness

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(PATIENCE)
    niceness.stand_back(gone.pid, 5)
    niceness.hurry(gone.pid)
    assert not alive(gone.pid)
