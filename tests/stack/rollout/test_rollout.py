"""scripts/rollout.sh with containers under load: no token is lost.

How a bad one is undone: tests/unit/scripts/test_script_rollout.py.
"""

from __future__ import annotations

import subprocess

import pytest

from tests.stack.appliance import ENGINES, GATEWAYS, Appliance
from tests.stack.load import under_load

ROLL_SECONDS = 560
PATIENCE = pytest.mark.timeout(900)
NEW_IMAGE = "vllm/vllm-openai-cpu:new-tag"


def roll(appliance: Appliance, *arguments: str) -> subprocess.CompletedProcess[str]:
    return appliance.script("rollout.sh", *arguments, timeout=ROLL_SECONDS)


def containers(appliance: Appliance, *services: str) -> dict[str, str]:
    return {service: appliance.inspect(service)["Id"] for service in services}


def settings(appliance: Appliance) -> dict[str, str]:
    lines = (appliance.folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def assert_whole(appliance: Appliance) -> None:
    for gateway in GATEWAYS:
        assert appliance.engines(gateway) == dict.fromkeys(ENGINES, "healthy")


@PATIENCE
async def test_a_new_image_under_load(appliance: Appliance) -> None:
    before = containers(appliance, *ENGINES)
    appliance.engine.run("tag", appliance.inspect("vllm-a")["Config"]["Image"], NEW_IMAGE)
    done, seen = await under_load(appliance, lambda: roll(appliance, "--image", NEW_IMAGE))
    assert done.returncode == 0, done.stdout + done.stderr
    seen.assert_none_lost()
    assert min(seen.healthy_engines) == 1, "one at a time, and never none"
    for engine in ENGINES:
        assert appliance.inspect(engine)["Id"] != before[engine]
        assert appliance.inspect(engine)["Config"]["Image"] == NEW_IMAGE
    # What runs is what the next «up» would start.
    assert settings(appliance)["VLLM_IMAGE_CPU"] == NEW_IMAGE
    assert_whole(appliance)


@PATIENCE
async def test_both_gateways_under_load(appliance: Appliance) -> None:
    before = containers(appliance, *GATEWAYS)
    done, seen = await under_load(appliance, lambda: roll(appliance, "--gateway"))
    assert done.returncode == 0, done.stdout + done.stderr
    seen.assert_none_lost()
    for gateway in GATEWAYS:
        assert appliance.inspect(gateway)["Id"] != before[gateway]
    assert_whole(appliance)
