"""SIGTERM to an engine, with and without --shutdown-timeout, as vLLM was seen to behave.

With it, what runs is finished, /health still says 200 and new requests get HTTP 500. Without it,
running streams fall silent and their connections stay open. The whole of it with real vLLM, as its
profiles set it, is in test_engine_faults.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scripts.chaos.load import Answer
from tests.integration.faults.scene import Scene, eventually, scene

STREAMS = 8
TOKENS = 120
DRIP = 0.03
# STALL_SECONDS (8) and two more: connections that are open tell nothing of a closed port.
MOVED_SECONDS = 10.0


async def _stop(it: Scene, how: str) -> list[Answer]:
    """Stops engine a under 8 answers and asks 8 more: all 16, after a look that none is wrong."""
    tasks = it.ask(STREAMS, TOKENS)
    await eventually(lambda: _spread(it), 10, "both engines run answers")
    if how == "finishing":
        it.a.finishing = True
    else:
        it.a.silent = True
        if how == "silent and refusing":
            it.a.refuse()
    tasks += it.ask(STREAMS, 20)
    answers = await asyncio.gather(*tasks)
    assert it.wrong(answers) == []
    await eventually(it.idle, 5, "nothing is in flight")
    return answers


async def _spread(it: Scene) -> bool:
    return it.a.running + it.b.running == STREAMS and it.a.running > 0


async def test_with_a_shutdown_timeout(tmp_path: Path) -> None:
    """0 of 16 fail or are cut; what ran on the engine ends there, without a gap of a second."""
    async with scene(tmp_path, TOKENS, DRIP) as it:
        answers = await _stop(it, "finishing")
        assert [one.number for one in answers[:STREAMS] if one.failovers] == []
        assert max(one.longest_gap for one in answers[:STREAMS]) < 1.0


@pytest.mark.parametrize("how", ["silent", "silent and refusing"])
async def test_without_one(tmp_path: Path, how: str) -> None:
    """0 of 16 fail or are cut; what ran on the engine moves within 10 s, whether the engine
    still takes new connections or not."""
    async with scene(tmp_path, TOKENS, DRIP) as it:
        answers = await _stop(it, how)
        moved = [one for one in answers[:STREAMS] if one.failovers]
        gap = max(one.longest_gap for one in answers)
        print(f"{how}: {len(moved)} moved, longest gap {gap:.2f} s")
        assert moved
        assert gap <= MOVED_SECONDS
