"""scripts/rollout.sh: every part is replaced under load, and nobody loses a token."""

from __future__ import annotations

import asyncio

import pytest

from scripts.chaos.load import Answer, Load, misspelt
from tests.integration.operators import operate
from tests.integration.tandem_instance import ENGINES, GATEWAYS, Tandem

STREAMS = 6
TOKENS = 150
# The engines share the cores with all else: without it, a new one would take minutes to load.
PAUSE_SECONDS = 3.0
ROLL_SECONDS = 560
PATIENCE = pytest.mark.timeout(900)


async def under_load(tandem: Tandem, *arguments: str) -> list[Answer]:
    load = Load(tandem.service, STREAMS, TOKENS, PAUSE_SECONDS)
    await load.start()
    try:
        done = await asyncio.to_thread(
            operate, tandem, "rollout.sh", *arguments, seconds=ROLL_SECONDS
        )
    finally:
        answers = await load.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    return answers


async def assert_none_lost(tandem: Tandem, answers: list[Answer]) -> None:
    assert len(answers) >= STREAMS
    assert [one.error for one in answers if one.failed] == []
    assert [one.number for one in answers if one.truncated or one.surplus or one.miscounted] == []
    assert await misspelt(tandem.service, answers) == 0


@PATIENCE
async def test_both_engines_under_load(tandem: Tandem) -> None:
    before = {engine: tandem.pid(engine) for engine in ENGINES}
    answers = await under_load(tandem)
    await assert_none_lost(tandem, answers)
    for engine in ENGINES:
        assert tandem.pid(engine) not in (0, before[engine])
    assert set(tandem.engine_states().values()) == {"healthy"}


@PATIENCE
async def test_both_gateways_under_load(tandem: Tandem) -> None:
    before = {gateway: tandem.pid(gateway) for gateway in GATEWAYS}
    answers = await under_load(tandem, "--gateway")
    await assert_none_lost(tandem, answers)
    for gateway in GATEWAYS:
        assert tandem.pid(gateway) not in (0, before[gateway])


def test_one_engine_alone(tandem: Tandem) -> None:
    other = tandem.pid("vllm-a")
    done = operate(tandem, "rollout.sh", "vllm-b", "--dry-run")
    assert done.returncode == 0 and "plan: replace vllm-b" in done.stdout, done.stderr
    assert tandem.pid("vllm-a") == other


def test_it_does_not_begin_unless_all_is_well(tandem: Tandem) -> None:
    """Never fewer than one healthy engine: with one drained, the other must not go."""
    before = {engine: tandem.pid(engine) for engine in ENGINES}
    assert operate(tandem, "engine.sh", "drain", "vllm-a").returncode == 0
    try:
        done = operate(tandem, "rollout.sh", "vllm-b")
        assert done.returncode == 3, done.stdout + done.stderr
        assert "vllm-a is not healthy" in done.stderr
    finally:
        operate(tandem, "engine.sh", "undrain", "vllm-a")
    assert {engine: tandem.pid(engine) for engine in ENGINES} == before


def test_image_and_profile_are_not_for_try(tandem: Tandem) -> None:
    done = operate(tandem, "rollout.sh", "--image", "some:tag")
    assert done.returncode == 2
    assert "compose" in done.stderr
