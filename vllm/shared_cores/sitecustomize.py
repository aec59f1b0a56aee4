"""For two engines on two cores: neither takes a core from the other for doing nothing.

Put this folder on PYTHONPATH of the engine. On a machine where every process has a core of its own
this would only cost time.
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
