"""One appliance for all scenarios: brought up once, whole again before each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.appliance import Appliance
from tests.stack.docker_engine import DockerEngine, EngineUnavailable, cache_folder


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerEngine]:
    engine = DockerEngine(cache_folder())
    try:
        engine.start()
    except EngineUnavailable as missing:
        pytest.fail(str(missing))
    try:
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def running(docker: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    folder = Path(tmp_path_factory.mktemp("stack"))
    # Bind-mounted into containers that are not root.
    for part in (folder, *folder.parents):
        if part.stat().st_uid == 0 and part.name.startswith("pytest"):
            part.chmod(0o755)
    try:
        appliance = Appliance(docker, folder)
    except EngineUnavailable as missing:
        pytest.fail(str(missing))
    try:
        appliance.up()
        yield appliance
    finally:
        appliance.down()


@pytest.fixture
def appliance(running: Appliance) -> Appliance:
    """The appliance, whole."""
    running.wait_whole()
    return running
