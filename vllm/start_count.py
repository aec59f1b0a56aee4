"""How many starts in a row did not last, kept in a file that outlives the process.

Owns: the file, the waits between starts, the number after which an engine parks.
"""

from __future__ import annotations

import os
from pathlib import Path

WAITS = "5,10,20,40,60"


class StartCount:
    """Counted before each start, so that even a killed process is counted."""

    def __init__(self, file: Path, waits: str | None = None) -> None:
        self._file = file
        text = waits if waits is not None else os.environ.get("RETRY_SECONDS", WAITS)
        self._waits = [float(part) for part in text.split(",")]

    @property
    def failed(self) -> int:
        """Starts in a row that did not last; an unreadable file counts as none."""
        try:
            return max(0, int(self._file.read_text()))
        except (OSError, ValueError):
            return 0

    @property
    def spent(self) -> bool:
        """Whether no start is left."""
        return self.failed >= len(self._waits)

    @property
    def pause(self) -> float:
        """Seconds to wait before the next start."""
        failed = min(self.failed, len(self._waits))
        return self._waits[failed - 1] if failed else 0.0

    def began(self) -> None:
        """A start begins: until it lasted, it counts as failed."""
        self.set(self.failed + 1)

    def reset(self) -> None:
        """It lasted."""
        self.set(0)

    def set(self, failed: int) -> None:
        """Writes the number whole or not at all."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(str(failed))
        draft.replace(self._file)
