"""Ports for what tests start: the first of several free ones in a row."""

from __future__ import annotations

import os
import socket


def first_of(count: int) -> int:
    """Where it begins to look differs from process to process; others may look, too."""
    first, last = 20_000, 32_000
    steps = (last - first) // count
    for step in range(steps):
        base = first + (os.getpid() + step) % steps * count
        if all(_is_free(port) for port in range(base, base + count)):
            return base
    raise RuntimeError(f"no {count} free ports in a row between {first} and {last}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
