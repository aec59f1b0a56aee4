"""The soak: long prompts and a full cache for minutes; nothing may be taken for dead.

A false alarm is an engine that a gateway calls anything but healthy, or a part with another
process than before.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from scripts.chaos.instance import ENGINES, GATEWAYS, Instance
from scripts.chaos.load import Answer, Load, Service

PARTS = (*ENGINES, *GATEWAYS, "redis", "nginx")
LOOK_SECONDS = 1.0
STREAMS = 48
# Some 2,500 tokens of the tiny model's 4,096.
LONG_WORDS = 200
FULL = 0.9


class LongLoad(Load):
    """Callers whose prompts are long, each its own, so that the cache fills up; every other one
    samples, with a seed of its own."""

    def question(self, number: int) -> dict[str, Any]:
        asked = super().question(number)
        words = " ".join(f"{number}-{n} 字" for n in range(LONG_WORDS))
        asked["messages"][0]["content"] = words
        asked["temperature"] = number % 2
        return asked


async def soak(instance: Instance, where: Service, chosen: argparse.Namespace) -> int:
    await asyncio.to_thread(instance.wait_healthy)
    before = {part: instance.pid(part) for part in PARTS}
    load = LongLoad(where, max(STREAMS, chosen.streams), chosen.tokens)
    await load.start()
    alarms, fullest = await _watch(instance, chosen.soak * 60)
    answers = await load.stop()
    after = {part: instance.pid(part) for part in PARTS}
    restarted = [part for part in PARTS if before[part] != after[part]]
    _say(answers, alarms, restarted, fullest)
    lost = any(one.failed or one.truncated for one in answers)
    return 1 if alarms or restarted or lost else 0


async def _watch(instance: Instance, seconds: float) -> tuple[list[str], dict[str, float]]:
    """What was not healthy, and how full each engine's cache became."""
    alarms: list[str] = []
    fullest = dict.fromkeys(ENGINES, 0.0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for gateway in GATEWAYS:
            try:
                seen = await asyncio.to_thread(instance.overview, gateway)
            except RuntimeError as error:
                alarms.append(f"{gateway}: {error}")
                continue
            for one in seen.get("engines", ()):
                fullest[one["name"]] = max(fullest[one["name"]], one["kv_cache"])
                if one["state"] != "healthy":
                    alarms.append(f"{gateway}: {one['name']} {one['state']} ({one['reason']})")
        await asyncio.sleep(LOOK_SECONDS)
    return alarms, fullest


def _say(
    answers: list[Answer], alarms: list[str], restarted: list[str], fullest: dict[str, float]
) -> None:
    lost = [one for one in answers if one.failed or one.truncated]
    cache = ", ".join(f"{name} {share:.0%}" for name, share in fullest.items())
    print(f"{len(answers)} answers, {len(lost)} lost; fullest cache: {cache}")
    if min(fullest.values()) < FULL:
        print("the cache never became full: try --streams, or end the instance for a small one")
    print(f"restarted: {', '.join(restarted) or 'nothing'}; false alarms: {len(alarms)}")
    for line in dict.fromkeys(alarms):
        print(f"  {line}")
    for text in dict.fromkeys(str(one.error) for one in lost):
        print(f"  told: {text}")
