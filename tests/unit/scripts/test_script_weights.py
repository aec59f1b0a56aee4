"""scripts/lib/weights.sh: fetched visibly, gone on with, and never taken when broken."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.scripts.conftest import Machine
from tests.unit.scripts.weights_server import (
    SHARDS,
    WeightsServer,
    model_files,
    serve_weights,
    tensors,
    write_model,
)


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    with serve_weights() as one:
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def fetch(machine: Machine, source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    text = f'fetch_weights "{source}" "{folder}"'
    return machine.bash(text, FETCH_PAUSE="0", FETCH_ATTEMPTS="2")


def assert_whole(folder: Path) -> None:
    for name, content in model_files().items():
        assert (folder / name).read_bytes() == content, name
    assert (folder / ".complete").exists()
    assert not list(folder.glob("*.partial"))
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", "weights.sha256"], cwd=folder, timeout=30, check=False
    )
    assert checked.returncode == 0


def test_all_of_it_comes_and_is_noted(
    machine: Machine, server: WeightsServer, folder: Path
) -> None:
    said = fetch(machine, server.url, folder)
    assert said.returncode == 0, said.stderr
    assert_whole(folder)
    asked = len(server.asked)
    again = fetch(machine, server.url, folder)
    assert again.returncode == 0 and "complete" in again.stdout
    assert len(server.asked) == asked


def test_a_download_that_is_cut_is_gone_on_with(
    machine: Machine, server: WeightsServer, folder: Path
) -> None:
    """More cuts than attempts: one that got further is no failed attempt."""
    server.cuts[SHARDS[1]] = [1000, 1000, 1000]
    said = fetch(machine, server.url, folder)
    assert said.returncode == 0, said.stderr
    assert_whole(folder)
    assert [first for name, first in server.asked if name == SHARDS[1]] == [0, 1000, 2000, 3000]


def test_what_an_earlier_run_left_is_gone_on_with(
    machine: Machine, server: WeightsServer, folder: Path
) -> None:
    folder.mkdir()
    whole = model_files()
    (folder / f"{SHARDS[2]}.partial").write_bytes(whole[SHARDS[2]][:1234])
    # This one was whole, and the run ended before it got its name.
    (folder / f"{SHARDS[3]}.partial").write_bytes(whole[SHARDS[3]])
    said = fetch(machine, server.url, folder)
    assert said.returncode == 0, said.stderr
    assert_whole(folder)
    assert (SHARDS[2], 1234) in server.asked


def test_a_server_that_cannot_go_on_is_asked_for_all(
    machine: Machine, server: WeightsServer, folder: Path
) -> None:
    server.can_go_on = False
    folder.mkdir()
    (folder / f"{SHARDS[0]}.partial").write_bytes(b"x" * 100)
    said = fetch(machine, server.url, folder)
    assert said.returncode == 0, said.stderr
    assert_whole(folder)


def test_a_file_that_is_not_there_ends_it_with_a_mend(
    machine: Machine, server: WeightsServer, folder: Path
) -> None:
    del server.files[SHARDS[3]]
    said = fetch(machine, server.url, folder)
    assert said.returncode == 1
    assert SHARDS[3] in said.stderr and "run the same command again" in said.stderr
    assert (folder / SHARDS[2]).exists()
    assert not (folder / ".complete").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", tensors(5000)[:-1], tensors(5000) + b"x", b"\xff" * 100],
    ids=["empty", "page", "cut", "too-long", "header"],
)
def test_a_broken_file_is_refused(
    machine: Machine, server: WeightsServer, folder: Path, content: bytes
) -> None:
    server.files[SHARDS[1]] = content
    said = fetch(machine, server.url, folder)
    assert said.returncode == 1
    assert SHARDS[1] in said.stderr
    assert not (folder / ".complete").exists()


def test_a_folder_is_copied_with_what_its_links_name(machine: Machine, folder: Path) -> None:
    """As a hub's own cache lays it out: names that are links to blobs."""
    source = folder.parent / "snapshot"
    write_model(folder.parent / "blobs")
    source.mkdir()
    for file in (folder.parent / "blobs").iterdir():
        (source / file.name).symlink_to(file)
    said = fetch(machine, str(source), folder)
    assert said.returncode == 0, said.stderr
    assert_whole(folder)
    assert not any(file.is_symlink() for file in folder.iterdir())


def test_a_folder_without_one_of_its_shards_is_refused(machine: Machine, folder: Path) -> None:
    write_model(folder.parent / "source")
    (folder.parent / "source" / SHARDS[2]).unlink()
    said = fetch(machine, str(folder.parent / "source"), folder)
    assert said.returncode == 1
    assert f"{SHARDS[2]} is missing" in said.stderr


def test_a_model_that_is_there_is_taken_as_it_is(
    machine: Machine, server: WeightsServer, folder: Path
) -> None:
    """A small model of one's own, which no source knows."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(tensors(100))
    said = fetch(machine, server.url, folder)
    assert said.returncode == 0, said.stderr
    assert server.asked == []
    assert (folder / ".complete").exists()
