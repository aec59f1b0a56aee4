"""scripts/engine.sh: an engine is taken out and put back, and everybody keeps their answers."""

from __future__ import annotations

import json

import pytest

from tests.integration.operators import operate
from tests.integration.tandem_instance import GATEWAYS, Tandem


@pytest.mark.parametrize("more", [(), ("--wait",)], ids=["move", "wait"])
def test_out_and_back(tandem: Tandem, more: tuple[str, ...]) -> None:
    try:
        drained = operate(tandem, "engine.sh", "drain", "vllm-a", *more)
        assert drained.returncode == 0, drained.stderr
        for gateway in GATEWAYS:
            assert tandem.engine_states(gateway)["vllm-a"] == "draining", gateway
        answers = [tandem.ask(f"question {number}") for number in range(4)]
        assert [one.status_code for one in answers] == [200] * 4
        assert {one.headers["x-tandem-engine"] for one in answers} == {"vllm-b"}
        said = operate(tandem, "engine.sh", "status", "--json")
        seen = json.loads(said.stdout)
        assert seen["drains"] == {"vllm-a": more[0][2:] if more else "move", "vllm-b": None}
    finally:
        back = operate(tandem, "engine.sh", "undrain", "vllm-a")
    assert back.returncode == 0, back.stderr
    for gateway in GATEWAYS:
        assert tandem.engine_states(gateway)["vllm-a"] != "draining", gateway
    tandem.wait_healthy()
    shown = operate(tandem, "engine.sh", "status")
    assert shown.returncode == 0
    assert "vllm-a" in shown.stdout and "draining" not in shown.stdout


def test_a_dry_run_takes_nothing_out(tandem: Tandem) -> None:
    said = operate(tandem, "engine.sh", "drain", "vllm-a", "--dry-run")
    assert said.returncode == 0, said.stderr
    assert "would run" in said.stdout and "drain vllm-a" in said.stdout
    drains = json.loads(operate(tandem, "engine.sh", "status", "--json").stdout)["drains"]
    assert drains == {"vllm-a": None, "vllm-b": None}
