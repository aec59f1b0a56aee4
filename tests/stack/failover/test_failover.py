"""kill -9 of an engine, or of a gateway, under running answers."""

from __future__ import annotations

from tests.stack.appliance import Appliance
from tests.stack.docker_engine import poll
from tests.stack.streams import Streams, ask

STREAMS = 8
TOKENS = 400


def test_no_answer_is_lost_when_an_engine_dies(appliance: Appliance) -> None:
    answers = Streams(appliance, STREAMS, TOKENS).run(lambda: appliance.kill("vllm-a"))
    assert [answer for answer in answers if not answer.complete] == []
    assert {answer.tokens for answer in answers} == {TOKENS}
    # It really was the engine of some of them.
    assert any("failovers=1" in comment for answer in answers for comment in answer.comments)
    poll(lambda: appliance.engines("gateway-a").get("vllm-a") == "healthy", 180, "vllm-a is back")


def test_requests_go_on_while_a_gateway_is_away(appliance: Appliance) -> None:
    appliance.kill("gateway-a")
    answers = [ask(appliance, number, tokens=4) for number in range(6)]
    assert [answer for answer in answers if not answer.complete] == []
