"""scripts/chaos: processes found under a part, marks in the READMEs, the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.chaos import processes, report
from scripts.chaos.faults import FAULTS
from scripts.chaos.instance import Instance
from scripts.chaos.words import HEAD, WHAT_ZH

ROOT = Path(__file__).parents[3]
# A parent with two children, one of which has one of its own.
FAMILY = """
exec -a the-parent bash -c '
  bash -c "exec -a first-child sleep 600" &
  bash -c "bash -c \\"exec -a grand-child sleep 600\\" & exec -a second-child sleep 600" &
  wait'
"""


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def family() -> Iterator[int]:
    parent = subprocess.Popen(["bash", "-c", FAMILY], start_new_session=True)
    until(lambda: all(found(parent.pid, name) for name in ("first-", "second-", "grand-")))
    yield parent.pid
    os.killpg(parent.pid, signal.SIGKILL)
    parent.wait(timeout=60)


def found(pid: int, wanted: str) -> list[int]:
    return [one for one in processes.find(pid, wanted) if "bash" not in processes.name(one)]


def test_all_under_a_process_are_found_parents_first(family: int) -> None:
    everyone = processes.descendants(family)
    assert everyone[0] == family and len(everyone) == 4
    assert everyone.index(found(family, "second-child")[0]) < everyone.index(
        found(family, "grand-child")[0]
    )
    assert os.getpid() not in everyone


def test_a_signal_reaches_only_who_is_meant(family: int) -> None:
    (grand,) = found(family, "grand-child")
    processes.send([grand], signal.SIGKILL)
    until(lambda: processes.is_zombie(grand) or not found(family, "grand-child"))
    assert found(family, "second-child") and found(family, "first-child")
    processes.send([grand, 2**22 - 1], signal.SIGKILL)  # gone already, or never there


def test_a_process_is_known_by_what_it_calls_itself() -> None:
    """vLLM's parts rename themselves; the kernel keeps fifteen characters."""
    rename = "open('/proc/self/comm', 'w').write('VLLM::EngineCore'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        one.stdout.readline()
        assert processes.name(one.pid) == processes.ENGINE_CORE
        assert processes.find(os.getpid(), processes.ENGINE_CORE) == [one.pid]
        one.kill()
    assert processes.name(one.pid) == ""
    assert processes.is_zombie(one.pid)


def test_every_fault_has_its_own_name_and_words() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert all(fault.what and "|" not in fault.what for fault in FAULTS)


@pytest.mark.parametrize(
    ("arguments", "code"), [(("--list",), 0), (("no-such-fault",), 2), (("kill-core",), 6)]
)
def test_nothing_is_broken_without_being_told_to(arguments: tuple[str, ...], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.chaos", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    if code == 0:
        assert [line.split()[0] for line in done.stdout.splitlines()] == [f.name for f in FAULTS]


def test_no_instance_is_an_error_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRY_DIR", str(tmp_path))
    monkeypatch.setenv("TANDEM_MODE", "try")
    with pytest.raises(RuntimeError, match="no try instance runs"):
        Instance("try").pid("vllm-a")


def test_tables_go_between_the_marks(tmp_path: Path) -> None:
    for name in report.READMES.values():
        (tmp_path / name).write_text("before\n<!-- chaos -->\nold\n<!-- /chaos -->\nafter\n")
    rows = [report.row(fault, [], 0, 1.0) for fault in FAULTS]
    report.write_readmes(tmp_path, rows, r"day \1", 16)
    for language, name in report.READMES.items():
        text = (tmp_path / name).read_text()
        assert text.startswith("before\n<!-- chaos -->\n`./scripts/chaos.sh --yes`")
        assert r"day \1" in text and "old" not in text
        assert report.table(rows, language) in text
        assert text.endswith("|\n<!-- /chaos -->\nafter\n")
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(SystemExit):
        report.write_readmes(tmp_path, rows, "x", 16)


def test_every_fault_is_told_in_both_languages() -> None:
    assert set(WHAT_ZH) == {fault.name for fault in FAULTS}
    assert len(HEAD["zh"]) == len(HEAD["en"])
