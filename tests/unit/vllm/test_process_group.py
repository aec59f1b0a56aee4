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


def niceness_of_session(pid: int) -> int | None:
    """None on a kernel without autogroups."""
    session = Path(f"/proc/{pid}/autogroup")
    return int(session.read_text().rpartition(" ")[2]) if session.exists() else None


def start(started: list[object], code: str, nice: int = 0):
    from process_group import Group

    started.append(Group([sys.executable, "-c", code], dict(os.environ), nice))
    return started[-1]


@pytest.mark.parametrize("alone", [False, True], ids=["with a child", "alone"])
def test_the_end_of_the_leader_is_seen_when_it_begins(started: list[object], alone: bool) -> None:
    lines = HALF_GONE.strip().splitlines()
    code = "\n".join(line for line in lines if not (alone and "child" in line))
    group = start(started, code)
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
    assert niceness_of_session(group.pid) in (5, None)


def test_alone_on_its_cores_it_does_not(started: list[object]) -> None:
    group = start(started, IDLE)
    assert os.getpriority(os.PRIO_PROCESS, group.pid) == os.getpriority(os.PRIO_PROCESS, 0)


def test_the_dying_are_not_held_up(started: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    import niceness

    group = start(started, IDLE, nice=5)
    before = niceness_of_session(group.pid)
    meanwhile: list[int | None] = []
    hurry = niceness.hurry

    def seen(leader: int) -> None:
        hurry(leader)
        meanwhile.append(niceness_of_session(leader))

    monkeypatch.setattr(niceness, "hurry", seen)
    assert group.kill()
    assert (before, *meanwhile) in ((5, 0), (None, None))
    assert group.kill(), "and once more, when it has gone"
    assert len(meanwhile) == 1


def test_nothing_is_said_of_a_process_that_has_gone() -> None:
    import niceness

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(PATIENCE)
    niceness.stand_back(gone.pid, 5)
    niceness.hurry(gone.pid)
    assert not alive(gone.pid)
