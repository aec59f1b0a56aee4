"""`/v1/messages` and `/v1/responses` from real engines: passed on as they are, and counted."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.integration.tandem_instance import ENGINES, GATEWAYS, Tandem, until

TOKENS = 16
TEXT = "你好，讲一个故事 🚣"
MESSAGES = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": TOKENS}
RESPONSES = {"input": TEXT, "max_output_tokens": TOKENS, "store": False}
KINDS = [("/v1/messages", MESSAGES), ("/v1/responses", RESPONSES)]
COUNTED_SECONDS = 10.0
ENDS = {"message_stop", "response.completed", "response.incomplete"}


def counted(tandem: Tandem) -> tuple[int, int]:
    """Prompt and completion tokens by both gateways' metrics."""
    totals = {"prompt": 0, "completion": 0}
    for name in GATEWAYS:
        text = httpx.get(f"{tandem.address(name)}/metrics", timeout=30).text
        for line in text.splitlines():
            for direction in totals:
                if line.startswith(f'gateway_tokens_total{{direction="{direction}"'):
                    totals[direction] += int(float(line.rpartition(" ")[2]))
    return totals["prompt"], totals["completion"]


def wait_counted(tandem: Tandem, before: tuple[int, int], usage: dict[str, int]) -> None:
    assert usage["input_tokens"] > 5 and 1 <= usage["output_tokens"] <= TOKENS, usage
    wanted = (before[0] + usage["input_tokens"], before[1] + usage["output_tokens"])
    until(lambda: counted(tandem) == wanted, COUNTED_SECONDS, f"{before} became {wanted}")


@pytest.mark.parametrize(("path", "asked"), KINDS)
def test_whole(tandem: Tandem, client: httpx.Client, path: str, asked: dict[str, Any]) -> None:
    before = counted(tandem)
    answer = client.post(path, json={"model": tandem.model, "temperature": 0, **asked})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["model"] == tandem.model
    assert answer.headers["x-tandem-engine"] in ENGINES
    wait_counted(tandem, before, said["usage"])


@pytest.mark.parametrize(("path", "asked"), KINDS)
def test_streamed(tandem: Tandem, client: httpx.Client, path: str, asked: dict[str, Any]) -> None:
    before = counted(tandem)
    body = {"model": tandem.model, "temperature": 0, "stream": True, **asked}
    with client.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line.startswith("data: {")]
    events = [json.loads(line[6:]) for line in lines]
    assert events[-1]["type"] in ENDS, events[-1]
    told = [one.get("usage") or one.get("response", {}).get("usage") for one in events]
    wait_counted(tandem, before, [usage for usage in told if usage][-1])
