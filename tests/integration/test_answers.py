"""Answers over HTTPS from real engines: whole, streamed, by OpenAI's own client, by a schema."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
import pytest

from tests.integration.events import chunks, text_of
from tests.integration.tandem_instance import ANSWER_SECONDS, ENGINES, Tandem, until

TOKENS = 24
QUESTION = [{"role": "user", "content": "你好，讲一个故事 🚣"}]


def body_of(tandem: Tandem, **more: object) -> dict[str, object]:
    return {
        "model": tandem.model, "messages": QUESTION, "max_tokens": TOKENS, "temperature": 0,
        "ignore_eos": True, **more,
    }  # fmt: skip


def test_a_whole_answer(tandem: Tandem, client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json=body_of(tandem))
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["object"] == "chat.completion"
    assert said["choices"][0]["finish_reason"] == "length"
    assert said["choices"][0]["message"]["role"] == "assistant"
    assert said["usage"]["completion_tokens"] == TOKENS
    assert answer.headers["x-tandem-engine"] in ENGINES
    assert answer.headers["x-request-id"]


def test_a_streamed_answer_says_the_same(tandem: Tandem, client: httpx.Client) -> None:
    whole = client.post("/v1/chat/completions", json=body_of(tandem)).json()
    asked = body_of(tandem, stream=True, stream_options={"include_usage": True})
    with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        pieces = chunks(response)
    assert text_of(pieces) == whole["choices"][0]["message"]["content"]
    assert len({piece["id"] for piece in pieces}) == 1
    reasons = [c["finish_reason"] for piece in pieces for c in piece["choices"]]
    assert [reason for reason in reasons if reason] == ["length"]
    assert pieces[-1]["usage"]["completion_tokens"] == TOKENS
    assert pieces[-1]["choices"] == []


def test_the_engines_own_fields_stay_inside(tandem: Tandem, client: httpx.Client) -> None:
    with client.stream("POST", "/v1/chat/completions", json=body_of(tandem, stream=True)) as got:
        pieces = chunks(got)
    assert all("usage" not in piece or piece["usage"] is None for piece in pieces)
    assert all("token_ids" not in c for piece in pieces for c in piece["choices"])
    assert all("prompt_token_ids" not in piece for piece in pieces)


async def test_long_prompts_that_are_sampled(tandem: Tandem) -> None:
    """12 at once, of 1,700 to 3,900 tokens, at the usual temperature: 0 fail, and no engine dies
    of them (without vllm/cpu_plugin one does: they are read in steps and have seeds)."""
    before = {engine: tandem.pid(engine) for engine in ENGINES}
    async with tandem.service.client() as client:
        answers = await asyncio.gather(*(_long(client, tandem, number) for number in range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
    assert min(answer.json()["usage"]["prompt_tokens"] for answer in answers) > 1500
    assert {engine: tandem.pid(engine) for engine in ENGINES} == before


async def test_a_seed_gives_the_same_answer_however_its_prompt_is_read(tandem: Tandem) -> None:
    """In several steps, and then, since it is in that engine's prefix cache, in one."""
    asked = {"max_tokens": 32, "return_token_ids": True, "ignore_eos": True}
    engine = tandem.address("vllm-a")
    async with httpx.AsyncClient(base_url=engine, timeout=ANSWER_SECONDS) as client:
        whole = [await _long(client, tandem, 50, seed=seed, **asked) for seed in (7, 7, 8)]
    assert whole[0].json()["usage"]["prompt_tokens"] > 1024
    first, again, other = (answer.json()["choices"][0]["token_ids"] for answer in whole)
    assert len(first) == 32
    assert again == first
    assert other != first


async def _long(
    client: httpx.AsyncClient, tandem: Tandem, number: int, **more: object
) -> httpx.Response:
    text = " ".join(f"{number}-{n} 字" for n in range(200 if number else 400))
    body = {"model": tandem.model, "messages": [{"role": "user", "content": text}], "max_tokens": 8}
    return await client.post("/v1/chat/completions", json=body | more)


def test_text_completions(tandem: Tandem, client: httpx.Client) -> None:
    asked = {"model": tandem.model, "prompt": "The river", "max_tokens": 12, "temperature": 0}
    whole = client.post("/v1/completions", json={**asked, "ignore_eos": True})
    assert whole.status_code == 200, whole.text
    assert whole.json()["usage"]["completion_tokens"] == 12
    with client.stream(
        "POST", "/v1/completions", json={**asked, "ignore_eos": True, "stream": True}
    ) as response:
        pieces = chunks(response)
    streamed = "".join(c["text"] for piece in pieces for c in piece["choices"])
    assert streamed == whole.json()["choices"][0]["text"]


def test_tokens_there_and_back(tandem: Tandem, client: httpx.Client) -> None:
    text = "the old engine 你好"
    ids = client.post("/tokenize", json={"model": tandem.model, "prompt": text}).json()["tokens"]
    back = client.post("/detokenize", json={"model": tandem.model, "tokens": ids})
    assert back.json()["prompt"] == text


def test_models_and_status(tandem: Tandem, client: httpx.Client) -> None:
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == [tandem.model]
    assert client.get(f"/v1/models/{tandem.model}").json()["id"] == tandem.model
    status = client.get("/v1/status").json()
    assert status["ready"] is True
    assert status["model"] == tandem.model
    assert [engine["name"] for engine in status["engines"]] == list(ENGINES)
    assert client.get("/readyz").json() == {"status": "ready"}


@pytest.fixture
def sdk(tandem: Tandem) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{tandem.url}/v1",
        api_key=tandem.key,
        max_retries=0,
        http_client=httpx.Client(verify=tandem.trust, timeout=180),
    )


def test_openais_client_whole(tandem: Tandem, sdk: openai.OpenAI) -> None:
    with sdk:
        answer = sdk.chat.completions.create(
            model=tandem.model, messages=[{"role": "user", "content": "hello"}], max_tokens=8
        )
        assert answer.usage is not None
        assert 1 <= answer.usage.completion_tokens <= 8
        with pytest.raises(openai.NotFoundError) as refused:
            sdk.chat.completions.create(
                model="no-such-model", messages=[{"role": "user", "content": "hello"}]
            )
    assert refused.value.code == "model_not_found"


def test_openais_client_streamed(tandem: Tandem, sdk: openai.OpenAI) -> None:
    with sdk:
        stream = sdk.chat.completions.create(
            model=tandem.model,
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        pieces = list(stream)
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.completion_tokens == TOKENS
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)


def test_an_answer_by_a_schema(tandem: Tandem, client: httpx.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}, "n": {"type": "integer", "maximum": 9}},
        "required": ["yes", "n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    answer = client.post(
        "/v1/chat/completions",
        json={
            "model": tandem.model, "messages": QUESTION, "temperature": 0, "max_tokens": 300,
            "response_format": wanted,
        },
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    said = json.loads(choice["message"]["content"])
    assert set(said) == {"yes", "n"}
    assert isinstance(said["yes"], bool)


def test_a_caller_who_leaves_frees_the_engine(tandem: Tandem, client: httpx.Client) -> None:
    asked = body_of(tandem, stream=True, max_tokens=3500)
    with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        lines = response.iter_lines()  # kept: the end of the iterator would close the response
        next(lines)
        until(lambda: sum(map(tandem.engine_running, ENGINES)) >= 1, 5, "the answer is running")
    # 3,500 tokens take far longer than this.
    until(lambda: sum(map(tandem.engine_running, ENGINES)) == 0, 5, "the engines are idle")


def test_conversations_are_shared_out(tandem: Tandem) -> None:
    """Eight callers that begin one after the other do not all land on one engine."""
    engines = {
        tandem.ask(f"question {number}", max_tokens=2).headers["x-tandem-engine"]
        for number in range(8)
    }
    assert engines == set(ENGINES)


def test_a_conversation_stays_where_its_cache_is(tandem: Tandem) -> None:
    turns = [{"role": "user", "content": "an opening of its own kind"}]
    engines = set()
    for number in range(4):
        answer = tandem.client.post(
            "/v1/chat/completions",
            json={"model": tandem.model, "messages": turns, "max_tokens": 4, "temperature": 0},
        )
        engines.add(answer.headers["x-tandem-engine"])
        said = answer.json()["choices"][0]["message"]["content"]
        turns += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": f"and then, number {number}?"},
        ]
    # Two gateways keep their own notes, so at most one move, and then it stays.
    assert len(engines) <= 2
