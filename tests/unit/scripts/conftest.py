"""The operator's scripts, run as programs, in a copy of the tree where they change something."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT_SECONDS = 120
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass
class Machine:
    """A copy of what the scripts need, and the programs they find first."""

    root: Path
    programs: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return run_program([str(self.root / script), *arguments], {**self.variables, **more})

    def bash(self, text: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Lines of bash after the shell library was sourced."""
        names = ("common", "options", "instance", "secrets", "weights", "restic", "redis")
        sourced = "".join(f'source "{self.root}/scripts/lib/{name}.sh"\n' for name in names)
        text = f"set -Eeuo pipefail\n{sourced}{text}"
        return run_program(["bash", "-c", text], {**self.variables, **more})

    def program(self, name: str, text: str) -> None:
        """A program of that name that comes before the machine's own."""
        file = self.programs / name
        file.write_text(f"#!/usr/bin/env bash\n{text}\n")
        file.chmod(0o755)


def run_program(command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**clean_environment(), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SCRIPT_SECONDS,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """Nothing of Tandem's own, or of restic's, leaks in from whoever runs the tests."""
    ours = ("TANDEM", "TRY_", "RESTIC", "BACKUP_", "SECRETS", "COMPOSE_", "FETCH_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    root, programs = tmp_path / "tandem", tmp_path / "programs"
    programs.mkdir()
    shutil.copytree(
        ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "vllm" / "profiles", root / "vllm" / "profiles")
    for name in (".env.example", "compose.yaml"):
        shutil.copy(ROOT / name, root / name)
    return Machine(root, programs, {"PATH": f"{programs}:{os.environ['PATH']}"})
