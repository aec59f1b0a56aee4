"""For engines that share their cores: neither takes one from the other for doing nothing.

Put this folder on PYTHONPATH of the engine, as try mode and compose.cpu.yaml do. Where every
process has a core of its own it only costs a little time.
"""

import gc
import os
import time

# Engine core and worker wait for each other with os.sched_yield in a loop, for up to a second: on
# shared cores they would take the time of whom they wait for.
NAP_SECONDS = 0.0003


def _nap() -> None:
    """Stands in for os.sched_yield."""
    time.sleep(NAP_SECONDS)


def _stay_frozen() -> None:
    """Stands in for gc.unfreeze. On its way out the engine core thaws its frozen heap and collects
    it: seconds of pure computing for memory that the kernel takes back anyway."""


os.sched_yield = _nap
gc.unfreeze = _stay_frozen
