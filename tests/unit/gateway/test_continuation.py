"""When an answer may be continued, with what, and where it is cut."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer import CHAT, COMPLETIONS, Progress
from gateway.continuation import (
    cut_to_whole_text,
    first_request,
    next_request,
    seed_at,
    tokens_left,
    wish,
)
from gateway.stop_strings import StopStrings
from tests.fakes.relaying import chat


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 3},
        {"stop": "x", "max_tokens": 9, "ignore_eos": True, "user": "someone"},
        {"stop_token_ids": [5], "skip_special_tokens": False},
        {"n": 1, "tools": [], "logprobs": False, "presence_penalty": 0, "logit_bias": None},
        {"repetition_penalty": 1.05, "response_format": {"type": "text"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
    ],
)
def test_plain_answers_are_continued(fields: dict[str, Any]) -> None:
    assert wish(CHAT, chat(**fields)).exact


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
        {"logprobs": True},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5},
        {"min_tokens": 5},
        {"logit_bias": {"5": 1}},
        {"bad_words": ["x"]},
        {"echo": True},
        {"stop": ["x"], "stop_token_ids": [5]},
        {"stop": ["x"], "skip_special_tokens": False},
        {"stop": ["x", ""]},
        {"some_new_field": 1},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
    ],
)
def test_what_depends_on_the_past_is_run_again(fields: dict[str, Any]) -> None:
    assert not wish(CHAT, chat(**fields)).exact


@pytest.mark.parametrize(
    "fields, exact",
    [
        ({"prompt": "hi"}, True),
        ({"prompt": [1, 2, 3]}, True),
        ({"prompt": ["hi"]}, False),
        ({"prompt": [[1, 2]]}, False),
        ({"prompt": "hi", "logprobs": 0}, False),
        ({"prompt": "hi", "suffix": "x"}, False),
    ],
)
def test_completions_with_one_prompt_are_continued(fields: dict[str, Any], exact: bool) -> None:
    assert wish(COMPLETIONS, fields).exact is exact


def test_the_next_request_goes_on_where_the_last_one_stopped() -> None:
    body = chat(temperature=0.5, max_tokens=9, stop=["x"], user="u", metadata={"a": "b"})
    wanted = wish(CHAT, body)
    first = first_request(wanted, 7)
    assert (first["seed"], first["return_token_ids"], first["messages"]) == (
        7,
        True,
        body["messages"],
    )
    assert first["stream_options"] == {"include_usage": True}
    progress = Progress(seed=7, prompt_ids=array("I", [1, 2]), ids=array("I", [3, 4, 5]))
    request = next_request(wanted, progress, 6)
    assert request["prompt"] == [1, 2, 3, 4, 5]
    assert (request["max_tokens"], request["temperature"], request["stop"]) == (6, 0.5, ["x"])
    assert "messages" not in request and "user" not in request
    assert request["seed"] == seed_at(7, 3) != 7
    assert "seed" not in body, "the caller's body is not changed"


def test_a_client_keeps_its_own_seed() -> None:
    assert first_request(wish(CHAT, chat(seed=5)), 9)["seed"] == 5


@pytest.mark.parametrize(
    "path, fields, left",
    [
        (CHAT, {"max_tokens": 9}, 6),
        (CHAT, {"max_tokens": 9, "max_completion_tokens": 5}, 2),
        (CHAT, {}, 100 - 2 - 3),
        (COMPLETIONS, {"prompt": "x"}, 16 - 3),
    ],
)
async def test_tokens_left(path: str, fields: dict[str, Any], left: int) -> None:
    async def ask(method: str, where: str, body: dict[str, Any]) -> dict[str, Any]:
        assert (method, where) == ("GET", "/v1/models")
        return {"data": [{"max_model_len": 100}]}

    progress = Progress(prompt_ids=array("I", [1, 2]), ids=array("I", [3, 4, 5]))
    assert await tokens_left(wish(path, fields), progress, ask) == left


async def test_the_cut_is_after_the_last_whole_letter() -> None:
    pieces = [b"a", b"\xe4\xbd", b"\xa0", b"b", b"\xe5", b"\xa5"]

    async def ask(method: str, where: str, body: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": b"".join(pieces[i] for i in body["tokens"]).decode("utf-8", "replace")}

    for low in range(1, 5):
        progress = Progress(ids=array("I", range(6)), whole_low=low, whole_high=6)
        await cut_to_whole_text(progress, ask)
        assert list(progress.ids) == [0, 1, 2, 3]
    progress = Progress(ids=array("I", range(6)), whole_low=4, whole_high=4)
    await cut_to_whole_text(progress, None)  # type: ignore[arg-type]  # nobody needs to be asked
    assert len(progress.ids) == 4


# Stop strings ----------------------------------------------------------------------------------

letters = st.text("abc", max_size=30)
stops = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3)


@given(letters, stops, st.booleans(), st.randoms(use_true_random=False))
def test_any_cutting_gives_the_text_before_the_first_stop_string(
    text: str, stops: list[str], include: bool, random: Any
) -> None:
    ends = [(text.find(stop) + len(stop), stop) for stop in stops if stop in text]
    end, _ = min(ends, key=lambda found: found[0], default=(0, ""))
    first = next((stop for at, stop in ends if at == end), None)
    expected = text if first is None else text[: end if include else end - len(first)]
    filtered, out, at = StopStrings(stops, include=include), "", 0
    while at < len(text) and filtered.matched is None:
        size = random.randint(1, 5)
        out += filtered.feed(text[at : at + size])
        at += size
        if filtered.matched is None:  # an engine dies here: only the tail is known to the next
            filtered = StopStrings(stops, include=include, tail=filtered.tail)
    assert filtered.matched == first
    assert out + ("" if first else filtered.flush()) == expected


@given(letters, stops)
def test_no_more_than_necessary_is_held_back(text: str, stops: list[str]) -> None:
    filtered = StopStrings(stops, include=False)
    for letter in text:
        filtered.feed(letter)
        assert len(filtered.tail) < max(map(len, stops))
