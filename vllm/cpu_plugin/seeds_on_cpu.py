"""A plugin of vLLM: on a CPU, a prompt may be read in steps and its request have a seed.

After each step that ends before the prompt does, vLLM sets the request's random generator back by
the one draw that was for nothing. A CUDA generator can count its draws; torch's CPU generator
refuses («CPU Generator does not use offset»), and the engine dies of it (vLLM 0.32,
v1/worker/gpu_model_runner.py). The gateway gives each request a seed, so any long one would do it.

vLLM finds it by the entry point in the .dist-info folder beside it: this folder on PYTHONPATH.
"""

from __future__ import annotations

import torch


class SeededGenerator(torch.Generator):
    """A generator whose last draws can be taken back while all of them were for nothing.

    That is so until the prompt has been read. Only a request that was preempted half-way is read
    once more after real draws; it then goes on with the first numbers of its seed.
    """

    def get_offset(self) -> int:
        """What set_offset() is given back, less the draws to forget; a CPU has no count."""
        return super().get_offset() if self.device.type != "cpu" else 0

    def set_offset(self, offset: int) -> None:
        """On a CPU: back to the seed, whatever the offset."""
        if self.device.type != "cpu":
            super().set_offset(offset)
        else:
            self.manual_seed(self.initial_seed())


def register() -> None:
    """Called by vLLM in each of its processes, perhaps more than once."""
    torch.Generator = SeededGenerator
