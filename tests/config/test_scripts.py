"""Every command in scripts/ keeps its word: help, usage errors, clean shell, no surprise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = sorted((ROOT / "scripts").glob("*.sh"))
LIBRARIES = sorted((ROOT / "scripts" / "lib").glob("*.sh"))
OTHERS = sorted({*ROOT.glob("scripts/*/*.sh"), *ROOT.glob(".ci/*.sh")} - {*LIBRARIES})
PATIENCE = 60
GROUPS: dict[str, tuple[list[Path], list[str]]] = {
    "commands": (COMMANDS, []),
    "libraries": (LIBRARIES, []),
    "others": (OTHERS, []),
    # Its templates read its variables by name, which shellcheck cannot see.
    "door": (sorted(ROOT.glob("nginx/*.sh")), ["--exclude=SC2034"]),
}


def run(command: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a folder of its own, so that nothing here is meant by accident."""
    return subprocess.run(
        [str(command), *arguments],
        cwd=folder,
        env={**os.environ, "TRY_DIR": str(folder / "try"), "TANDEM_CACHE": str(folder / "cache")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_there_are_commands() -> None:
    assert {"setup.sh", "try.sh", "test.sh", "status.sh", "keys.sh"} <= set(names(COMMANDS))


@pytest.mark.parametrize("command", COMMANDS, ids=names(COMMANDS))
def test_help_says_how_to_use_it(command: Path, tmp_path: Path) -> None:
    for option in ("--help", "-h"):
        told = run(command, option, folder=tmp_path)
        assert told.returncode == 0, told.stderr
        assert f"Usage: scripts/{command.name}" in told.stdout
        assert "Exit:" in told.stdout
        assert "set -E" not in told.stdout
    assert list(tmp_path.iterdir()) == [], "asking for help changed something"


@pytest.mark.parametrize("command", COMMANDS, ids=names(COMMANDS))
def test_a_wrong_option_is_a_usage_error(command: Path, tmp_path: Path) -> None:
    refused = run(command, "--no-such-option", folder=tmp_path)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "--no-such-option" in refused.stderr
    assert f"scripts/{command.name} --help" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize("command", COMMANDS, ids=names(COMMANDS))
def test_it_can_be_started(command: Path) -> None:
    assert os.access(command, os.X_OK)
    head = command.read_text().splitlines()
    assert head[0] == "#!/usr/bin/env bash"
    assert head[1].startswith("# ")
    assert "set -Eeuo pipefail" in head
    assert head[-1] == 'main "$@"'


@pytest.mark.parametrize("library", LIBRARIES, ids=names(LIBRARIES))
def test_a_library_is_only_sourced(library: Path) -> None:
    assert library.read_text().startswith("# shellcheck shell=bash")
    assert not os.access(library, os.X_OK)


@pytest.mark.parametrize("group", ["commands", "libraries", "others", "door"])
def test_shellcheck_finds_nothing(group: str) -> None:
    beside_python = Path(sys.executable).parent / "shellcheck"
    program = str(beside_python) if beside_python.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.fail("shellcheck is not installed; scripts/test.sh installs it")
    files, options = GROUPS[group]
    found = subprocess.run(
        [program, "--external-sources", "--source-path=SCRIPTDIR", *options, *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 4,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
