"""Keys and rates, with a clock that is turned by hand."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import KeyRing
from gateway.errors import AuthenticationFailed, RateLimited
from gateway.limits import Limits


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def line(name: str, key: str) -> str:
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n"


def bearer(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + key.encode())]


def test_keys_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    file, clock = tmp_path / "api_keys", Clock()
    file.write_text("# people\n\n" + line("alice", "a-key") + "not a line\n")
    ring = KeyRing(file, clock)
    assert ring.check(bearer("a-key")).name == "alice"
    with pytest.raises(AuthenticationFailed):
        ring.check(bearer("b-key"))
    file.write_text(line("bob", "b-key") + "# longer than before\n" * 9)
    os.utime(file, ns=(1, 1))
    clock.now += 3
    assert ring.check([(b"x-api-key", b"b-key")]).name == "bob"
    with pytest.raises(AuthenticationFailed):
        ring.check(bearer("a-key"))


def test_a_file_that_is_gone_locks_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "api_keys", Clock()
    file.write_text(line("alice", "a-key"))
    ring = KeyRing(file, clock)
    ring.check(bearer("a-key"))
    file.unlink()
    clock.now += 3
    with caplog.at_level(logging.WARNING):
        assert ring.check(bearer("a-key")).name == "alice"
    assert "cannot be read" in caplog.text


class NoRedis:
    async def eval(self, *_: Any) -> None:
        raise ConnectionError


async def test_a_burst_then_one_at_a_time_without_redis() -> None:
    clock = Clock()
    limits = Limits(NoRedis(), 60, clock)
    left = [await limits.check("alice") for _ in range(15)]
    assert [a.remaining for a in left if a] == list(range(14, -1, -1))
    with pytest.raises(RateLimited) as refused:
        await limits.check("alice")
    assert refused.value.retry_after == pytest.approx(1.0)
    await limits.check("bob")
    clock.now += 1.0
    await limits.check("alice")
    with pytest.raises(RateLimited):
        await limits.check("alice")


async def test_no_limit() -> None:
    assert await Limits(NoRedis(), 0, Clock()).check("alice") is None
