"""How far an engine stands back from whatever shares its cores.

On a machine where engines compute on the same cores as the door and the gateways, an engine's
next step may wait for a moment; what carries the last step's tokens to their readers may not.
Only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

# Without privileges the kernel takes one change of an autogroup in a tenth of a second, of all
# on the machine (sched(7), kernel/sched/autogroup.c), and answers EAGAIN to the others.
TRIES = 4
TURN_SECONDS = 0.1


def stand_back(pid: int, niceness: int) -> None:
    """Sets it for a process that has just been started, and so for all that it will start."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    _of_session(pid, niceness)


def hurry(leader: int) -> None:
    """Takes it back for the leader's group and session: the dying are not to be held up.

    Without privileges only the session's can be taken back, where the kernel has autogroups.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PGRP, leader, 0)
    _of_session(leader, 0)


def _of_session(pid: int, niceness: int) -> None:
    """With autogroups a process's own niceness counts within its session only, and the session
    has one of its own (sched(7)). Without them there is no such file."""
    for _ in range(TRIES):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(f"{niceness}\n")
        except BlockingIOError:
            time.sleep(TURN_SECONDS)
        except OSError:
            return
        else:
            return
