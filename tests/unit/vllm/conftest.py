"""The fixture that starts serve.py, and the path to the modules it is made of."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serve_life import VLLM, Serve, free_port

sys.path.insert(0, str(VLLM))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    port = free_port()
    lives: list[Serve] = []

    def start(**environment: str) -> Serve:
        lives.append(Serve(tmp_path, port, **environment))
        return lives[-1]

    yield start
    for life in reversed(lives):
        life.clean_up()
