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
    """A generator that can take back its first draw, made before the prompt had been read.

    A request that was preempted half-way is read once more, after real draws. It goes on with
    what follows them: its first numbers again would make its first words likely again.
    """

    def get_offset(self) -> int:
        """vLLM hands it to set_offset(), less the draw to forget; a CPU has no count."""
        return super().get_offset() if self.device.type != "cpu" else 0

    def set_offset(self, offset: int) -> None:
        """On a CPU: back to the seed, if there was no draw but the one to forget."""
        if self.device.type != "cpu":
            super().set_offset(offset)
        elif torch.equal(self.get_state(), _after_one_draw(self.initial_seed())):
            self.manual_seed(self.initial_seed())


def _after_one_draw(seed: int) -> torch.Tensor:
    """The state after what vLLM draws for a token (v1/sample/ops/topk_topp_sampler.py)."""
    fresh = SeededGenerator(device="cpu").manual_seed(seed)
    torch.randint(0, 2**31, (1,), generator=fresh, dtype=torch.long)
    return fresh.get_state()


def register() -> None:
    """Called by vLLM in each of its processes, perhaps more than once."""
    torch.Generator = SeededGenerator
