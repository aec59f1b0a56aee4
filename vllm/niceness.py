"""How far an engine stands back from whatever shares its cores.

On a machine where engines compute on the same cores as the door and the gateways, an engine's
next step may wait for a moment; what carries the last step's tokens to their readers may not.
Only the standard library.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def stand_back(pid: int, niceness: int) -> None:
    """Sets it for a process that has just been started, and so for all that it will start."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    _of_session(pid, niceness)


def hurry(pid: int) -> None:
    """Takes it back for the process and its session: the dying are not to be held up."""
    _of_session(pid, 0)


def _of_session(pid: int, niceness: int) -> None:
    """With the kernel's autogroups a process's own niceness counts within its session only, and
    the session has one of its own (sched(7)). Without them there is no such file."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(f"{niceness}\n")
