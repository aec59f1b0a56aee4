"""What a rollout asks: is the engine so yet, and does it answer as well as the other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import rollout_check

OVERVIEW = "http://gateway/internal/engines"


def engine(**fields: Any) -> dict[str, Any]:
    ordinary = {"name": "vllm-a", "state": "healthy", "reason": "", "alive": True, "in_flight": 0}
    return {**ordinary, "drain": None, **fields}


class Asked:
    """Answers in turn; the last one again and again. An exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.urls: list[str] = []

    def __call__(self, url: str, body: bytes | None) -> Any:
        self.urls.append(url)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_check, "LOOK_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("wanted", "not_yet", "then"),
    [
        ("drained-wait", {}, {"drain": "wait", "state": "draining", "in_flight": 2}),
        ("drained-move", {"drain": "wait"}, {"drain": "move", "in_flight": 2}),
        ("undrained", {"drain": "wait", "state": "draining"}, {"state": "down"}),
        ("idle", {"in_flight": 2, "drain": "move"}, {"in_flight": 0, "drain": "move"}),
        ("idle", {"in_flight": 0}, {"in_flight": 0, "drain": "move"}),
        ("alive", {"alive": False, "state": "down"}, {"alive": True, "state": "draining"}),
        ("healthy", {"state": "draining"}, {"state": "healthy"}),
    ],
)
def test_wait_ends_when_the_engine_is_so(
    wanted: str, not_yet: dict[str, Any], then: dict[str, Any]
) -> None:
    ask = Asked({"engines": [engine(**not_yet)]}, OSError("away"), {"engines": [engine(**then)]})
    assert rollout_check.wait("vllm-a", wanted, 60, OVERVIEW, ask) is None
    assert ask.urls == [OVERVIEW] * 3


def test_wait_says_what_it_saw_last() -> None:
    ask = Asked({"engines": [engine(state="down", reason="hung", alive=False)]})
    complaint = rollout_check.wait("vllm-a", "alive", 0, OVERVIEW, ask)
    assert complaint == "vllm-a was not alive within 0 s: down (hung)"


def test_wait_believes_an_engine_only_that_answers_itself() -> None:
    """Just recreated: the overview still tells of the old one."""
    seen = {"engines": [engine()]}
    ask = Asked(seen, OSError("refused"), seen, {"data": []})
    assert rollout_check.wait("vllm-a", "alive", 60, OVERVIEW, ask, url="http://a") is None
    assert ask.urls == [OVERVIEW, "http://a/v1/models"] * 2


def answer(text: str) -> dict[str, Any]:
    return {"choices": [{"text": text}]}


def test_an_engine_that_answers_passes() -> None:
    ask = Asked(answer(" 5, 6, 7, 8, 9"))
    assert rollout_check.canary("http://a", "http://b", "m", ask) is None
    assert "http://a/v1/completions" in ask.urls
    assert "http://b/v1/completions" in ask.urls


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (OSError("refused"), "did not answer"),
        ({"error": "no"}, "did not answer"),
        (answer("!!!!!!!!!!!!!!!!"), "one character over and over"),
    ],
)
def test_an_engine_that_does_not_is_named(given: Any, complaint: str) -> None:
    found = rollout_check.canary("http://a", "http://b", "m", Asked(given))
    assert found is not None and complaint in found


def test_a_much_slower_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(rollout_check.time, "monotonic", lambda: now[0])

    def ask(url: str, body: bytes | None) -> Any:
        assert json.loads(body or b"{}")["temperature"] == 0
        now[0] += 9.0 if url.startswith("http://a") else 2.0
        return answer(" 5")

    complaint = rollout_check.canary("http://a", "http://b", "m", ask)
    assert complaint == "it needs 9.0 s for an answer; the other engine 2.0 s"


def test_an_unknown_engine_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENGINES", "vllm-a=http://a:1,vllm-b=http://b:1")
    assert rollout_check.main(["wait", "vllm-z", "idle"]) == 2
    assert "vllm-a, vllm-b" in capsys.readouterr().err
