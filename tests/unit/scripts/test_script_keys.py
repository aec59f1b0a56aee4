"""scripts/keys.sh: keys are made once, kept as hashes, and revoked in place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gateway.auth import KeyRing
from tests.unit.scripts.conftest import Machine


@pytest.fixture
def secrets(machine: Machine, tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    machine.variables["SECRETS"] = str(folder)
    return folder


def add(machine: Machine, name: str) -> str:
    said = machine.run("scripts/keys.sh", "add", name)
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


def opens(file: Path, key: str) -> str:
    headers = [(b"authorization", f"Bearer {key}".encode())]
    return KeyRing(file, lambda: 0.0).check(headers).name


def test_a_new_key_opens_the_gateway_and_only_its_hash_is_kept(
    machine: Machine, secrets: Path
) -> None:
    key = add(machine, "alice")
    text = (secrets / "api_keys").read_text()
    assert text == f"alice {hashlib.sha256(key.encode()).hexdigest()}\n"
    assert opens(secrets / "api_keys", key) == "alice"
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert (secrets / "api_keys").stat().st_mode & 0o777 == 0o444


def test_a_name_is_taken_once(machine: Machine, secrets: Path) -> None:
    add(machine, "alice")
    before = (secrets / "api_keys").read_text()
    said = machine.run("scripts/keys.sh", "add", "alice")
    assert said.returncode == 3
    assert "revoke alice" in said.stderr
    assert (secrets / "api_keys").read_text() == before


def test_changes_are_made_in_place(machine: Machine, secrets: Path) -> None:
    """A container has the file itself mounted: another file under its name would not be seen."""
    first, second = add(machine, "alice"), add(machine, "bob")
    file = secrets / "api_keys"
    inode = file.stat().st_ino
    assert machine.run("scripts/keys.sh", "revoke", "alice").returncode == 0
    third = add(machine, "carol")
    assert file.stat().st_ino == inode
    assert opens(file, second) == "bob" and opens(file, third) == "carol"
    assert hashlib.sha256(first.encode()).hexdigest() not in file.read_text()
    assert file.read_bytes().count(b"\n") == 2


def test_a_name_is_meant_as_it_stands(machine: Machine, secrets: Path) -> None:
    """A dot is a dot, and a beginning is not the whole name."""
    keys = {name: add(machine, name) for name in ("a.b", "axb", "a", "a.b.c")}
    assert machine.run("scripts/keys.sh", "revoke", "a.b").returncode == 0
    for name in ("axb", "a", "a.b.c"):
        assert opens(secrets / "api_keys", keys[name]) == name
    assert machine.run("scripts/keys.sh", "revoke", "a.b").returncode == 3


def test_what_people_wrote_there_stays(machine: Machine, secrets: Path) -> None:
    secrets.mkdir()
    digest = hashlib.sha256(b"hand-made").hexdigest()
    # No line end, as some editors leave it.
    (secrets / "api_keys").write_text(f"# of the laboratory\n\nhand {digest}")
    key = add(machine, "alice")
    assert machine.run("scripts/keys.sh", "list").stdout.split() == ["hand", "alice"]
    assert opens(secrets / "api_keys", "hand-made") == "hand"
    assert opens(secrets / "api_keys", key) == "alice"
    assert machine.run("scripts/keys.sh", "revoke", "alice").returncode == 0
    assert (secrets / "api_keys").read_text().startswith("# of the laboratory\n")
    assert machine.run("scripts/keys.sh", "list").stdout.split() == ["hand"]


def test_the_last_key_can_go(machine: Machine, secrets: Path) -> None:
    add(machine, "alice")
    assert machine.run("scripts/keys.sh", "revoke", "alice").returncode == 0
    assert (secrets / "api_keys").read_bytes() == b""
    assert machine.run("scripts/keys.sh", "list").stdout == ""


@pytest.mark.parametrize("name", ["a b", "ä", "a/b", "#x", "x" * 65, "$(id)"])
def test_a_name_that_the_gateway_would_not_read_is_refused(
    machine: Machine, secrets: Path, name: str
) -> None:
    assert machine.run("scripts/keys.sh", "add", name).returncode == 2
    assert not (secrets / "api_keys").exists()


def test_a_dry_run_changes_nothing(machine: Machine, secrets: Path) -> None:
    said = machine.run("scripts/keys.sh", "add", "alice", "--dry-run")
    assert said.returncode == 0 and "alice" in said.stdout
    assert not secrets.exists()
    assert machine.run("scripts/keys.sh", "list").returncode == 0
