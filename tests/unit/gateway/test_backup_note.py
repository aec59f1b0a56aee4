"""The note of the newest backup, as backup.sh leaves it in Redis."""

from __future__ import annotations

import pytest

from gateway import backup_note


class Store:
    def __init__(self, value: object) -> None:
        self.value = value

    async def get(self, key: str) -> object:
        assert key == "tandem:backup:last"
        return self.value


@pytest.mark.parametrize(
    ("noted", "seconds"),
    [(None, 0.0), (b"1764275000", 1764275000.0), ("1764275000", 1764275000.0), ("no", 0.0)],
)
async def test_it_is_read(noted: object, seconds: float) -> None:
    assert await backup_note.read(Store(noted)) == seconds
