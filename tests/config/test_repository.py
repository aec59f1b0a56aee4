"""What holds for every file of the repository: short, readable anywhere, nothing left undone."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_AT_MOST = 300
CODE = (".py", ".ts", ".tsx", ".sh", ".html")
# Long because a tool wrote them, or because they are words.
LONG = re.compile(r"(\.lock|package-lock\.json|\.svg|\.txt|\.md|\.json|LICENSE)$")
HERE = Path(__file__).relative_to(ROOT)

# Spelt apart so that this file does not hold them.
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X:", "NotImple" + "mented")
PLACES = ("/wo" + "rk/", "/ho" + "me/", "/tmp/tan" + "dem/", "/tmp/ve" + "nvs")
REGISTRIES = ("pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "npm" + "mirror.com",
              "index" + "-url ")  # fmt: skip
SECRETS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|sk-tandem-[0-9a-f]{32}|ghp_\w{30}")
VAGUE = {"utils", "util", "helpers", "helper", "core", "common", "services", "misc"}


@cache
def files() -> list[Path]:
    """What is in the repository; in a copy without git, what lies there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "-z"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if listed.returncode == 0 and listed.stdout:
        found = [Path(name) for name in listed.stdout.split("\0") if name]
    else:
        found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if _ours(path)]
    return [path for path in found if (ROOT / path).is_file()]


def _ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    left_out = {"node_modules", "dist", "__pycache__", "secrets", "models", "backups"}
    return path.is_file() and not any(
        part in left_out or part.startswith((".try", ".git", ".venv")) or part.endswith("_cache")
        for part in parts
    )


@cache
def text_of(path: Path) -> str:
    """Nothing for what is no text."""
    try:
        return (ROOT / path).read_text("utf-8")
    except UnicodeDecodeError:
        return ""


def holding(words: tuple[str, ...]) -> list[str]:
    return [
        f"{path}: {word}"
        for path in files()
        for word in words
        if path != HERE and word in text_of(path)
    ]


def test_there_are_files() -> None:
    assert len(files()) > 100
    assert Path("gateway/__main__.py") in files()


def test_no_file_is_too_long() -> None:
    long = {
        str(path): len(text_of(path).splitlines())
        for path in files()
        if path.suffix in CODE and not LONG.search(str(path))
    }
    assert {path: n for path, n in long.items() if n > LINES_AT_MOST} == {}


def test_nothing_is_left_undone() -> None:
    code = [name for name in holding(UNFINISHED) if not name.startswith("web/package-lock")]
    assert code == []


def test_no_file_knows_one_machine() -> None:
    assert holding(PLACES) == []


def test_no_file_names_a_registry() -> None:
    assert holding(REGISTRIES) == []


def test_no_secret_is_in_the_repository() -> None:
    assert [str(path) for path in files() if path != HERE and SECRETS.search(text_of(path))] == []
    kept = [path for path in files() if path.parts[0] in ("secrets", "certificates", "models")]
    assert kept == []
    assert Path(".env") not in files()


def test_a_name_says_what_is_inside() -> None:
    vague = [
        str(path)
        for path in files()
        if path.suffix == ".py" and {*path.parent.parts, path.stem} & VAGUE
    ]
    assert vague == []


def test_every_module_says_what_it_owns() -> None:
    silent = [
        str(path)
        for path in files()
        if path.suffix == ".py"
        and text_of(path).strip()
        and not text_of(path).startswith(('"""', "#!"))
    ]
    assert silent == []


@pytest.mark.parametrize("lock", ["gateway/requirements.lock", "tests/requirements.lock",
                                  "vllm/requirements-cpu.lock"])  # fmt: skip
def test_locks_have_hashes(lock: str) -> None:
    entries = re.findall(
        r"^[A-Za-z0-9_.-]+==.*?(?=^[A-Za-z0-9]|\Z)", text_of(Path(lock)), re.M | re.S
    )
    assert len(entries) > 10
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("suffix", [".py", ".sh", ".ts", ".tsx", ".yaml", ".yml", ".template"])
def test_lines_end_cleanly(suffix: str) -> None:
    unclean = []
    for path in files():
        text = text_of(path)
        if path.suffix == suffix and text:
            if "\r" in text or "\t" in text or not text.endswith("\n"):
                unclean.append(str(path))
            elif any(line != line.rstrip() for line in text.splitlines()):
                unclean.append(str(path))
    assert unclean == []
