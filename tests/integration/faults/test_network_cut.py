"""The network between the gateway and one engine is cut under 16 running answers.

The packet filter does it, so the answers' sockets see what a pulled cable or a firewall's reset
would show them. It needs root, as the stack tests do.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults.scene import Scene, eventually, scene

STREAMS = 16
TOKENS = {"DROP": 420, "REJECT": 200}
DRIP = 0.03
# An engine that says nothing is left after STALL_SECONDS (8).
MOVED_SECONDS = {"DROP": 10.0, "REJECT": 3.0}
# Those on the other engine hardly notice; the rest is for a machine with other work.
STAYED_SECONDS = 4.0
CUT_SECONDS = {"DROP": 12.0, "REJECT": 5.0}
BACK_SECONDS = 20.0


@contextlib.contextmanager
def cut(port: int, action: str) -> Iterator[None]:
    """Both ways. A reset that the filter itself sends has to come through."""
    rules = [["-p", "tcp", f"--{end}port", str(port)] for end in "ds"]
    if action == "REJECT":
        more = ["!", "--tcp-flags", "RST", "RST", "-j", "REJECT", "--reject-with", "tcp-reset"]
        rules = [[*rule, *more] for rule in rules]
    else:
        rules = [[*rule, "-j", "DROP"] for rule in rules]
    with contextlib.ExitStack() as stack:
        for rule in rules:
            _filter("-I", rule)
            stack.callback(_filter, "-D", rule)
        yield


def _filter(change: str, rule: list[str]) -> None:
    subprocess.run(["iptables", "-w", "5", change, "INPUT", *rule], check=True, timeout=10)


@pytest.mark.parametrize("action", ["DROP", "REJECT"])
async def test_engine_cut_off(tmp_path: Path, action: str) -> None:
    """0 of 16 fail, end early or hold a token twice; those on the cut engine go on within 10 s
    (3 s where connections are reset), and the engine is back in use soon after the cut."""
    async with scene(tmp_path, TOKENS[action], DRIP) as it:
        tasks = it.ask(STREAMS, TOKENS[action])
        await eventually(lambda: _spread(it), 10, "both engines run answers")
        on_a = it.a.running
        with cut(it.a.port, action):
            await asyncio.sleep(CUT_SECONDS[action])
        back = await eventually(it.healthy, BACK_SECONDS, "the engine is healthy again")
        answers = await asyncio.gather(*tasks)
        assert it.wrong(answers) == []
        moved = [one.longest_gap for one in answers if one.failovers]
        print(f"{action}: {len(moved)} of {on_a} moved, longest gap {max(moved, default=0):.2f} s")
        assert len(moved) == on_a > 0
        assert max(moved) <= MOVED_SECONDS[action]
        assert max(one.longest_gap for one in answers if not one.failovers) <= STAYED_SECONDS
        again = await asyncio.gather(*it.ask(STREAMS, 20))
        print(f"healthy {back:.1f} s after the cut")
        assert it.wrong(again) == []
        await eventually(it.idle, 5, "nothing is in flight")


async def _spread(it: Scene) -> bool:
    return it.a.running + it.b.running == STREAMS and it.a.running > 0
