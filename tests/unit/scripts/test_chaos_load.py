"""scripts/chaos/load.py: what a caller of a bad service counts, and that nothing escapes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from scripts.chaos.faults import Fault
from scripts.chaos.load import Answer, Load, Service, ask, misspelt, question
from scripts.chaos.report import row, table
from scripts.chaos.words import HEAD

FAULT = Fault("a-fault", "what is done", lambda instance: None)
OUTAGE = Fault("an-outage", "what is done", lambda instance: None, outage=True)
TOKENS = 3


def piece(*ids: int, text: str = "x", finish: str | None = None) -> bytes:
    choice: dict[str, Any] = {"delta": {"content": text}, "token_ids": list(ids)}
    event = {"choices": [{**choice, "finish_reason": finish}]}
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def usage(tokens: int) -> bytes:
    event = {"choices": [], "usage": {"completion_tokens": tokens}}
    return f"data: {json.dumps(event)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
WHOLE = (piece(1), piece(2), piece(3, finish="length"), usage(3), DONE)


class Body(httpx.AsyncByteStream):
    def __init__(self, items: tuple[bytes | Exception, ...]) -> None:
        self._items = items

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for item in self._items:
            if isinstance(item, Exception):
                raise item
            yield item


async def heard(*items: bytes | Exception, status: int = 200) -> Answer:
    """The answer of a service that sends these."""
    transport = httpx.MockTransport(lambda request: httpx.Response(status, stream=Body(items)))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return await ask(client, question(1, "model", TOKENS))


def lost(answer: Answer) -> bool:
    return row(FAULT, [answer], 0, 1.0).lost > 0


async def test_a_whole_answer_is_no_loss() -> None:
    answer = await heard(*WHOLE)
    assert not answer.failed and not answer.truncated and not answer.miscounted
    assert answer.surplus == 0 and answer.ids == [1, 2, 3] and answer.text == "xxx"
    assert not lost(answer)


async def test_how_it_is_cut_into_pieces_does_not_matter() -> None:
    """Characters that end a line elsewhere, too, and a comment of a move."""
    body = piece(1, text="a\u2028\x85\x0b中") + piece(2, 3, finish="length") + usage(3)
    body += b": tandem failovers=2\n\n" + DONE
    answer = await heard(*(body[n : n + 1] for n in range(len(body))))
    assert answer.error is None
    assert answer.text == "a\u2028\x85\x0b中x"
    assert answer.ids == [1, 2, 3] and answer.failovers == 2
    assert not lost(answer)


@pytest.mark.parametrize(
    "items",
    [
        (piece(1), piece(2, finish="length"), usage(2), DONE),
        (piece(1), piece(2), piece(3), usage(3), DONE),
        (piece(1), piece(2), piece(3, finish="stop"), usage(3), DONE),
        (DONE,),
    ],
    ids=["a-token-less", "no-reason", "another-reason", "nothing"],
)
async def test_an_answer_that_ends_too_early_is_truncated(items: tuple[bytes, ...]) -> None:
    answer = await heard(*items)
    assert answer.truncated and not answer.failed
    assert lost(answer)


async def test_a_token_twice_is_surplus() -> None:
    answer = await heard(piece(1), piece(2), piece(2), piece(3, finish="length"), usage(4), DONE)
    assert answer.surplus == 1
    assert lost(answer)


@pytest.mark.parametrize("counted", [(), (usage(2),), (usage(4),)], ids=["none", "less", "more"])
async def test_a_usage_that_disagrees_is_a_loss(counted: tuple[bytes, ...]) -> None:
    answer = await heard(piece(1), piece(2), piece(3, finish="length"), *counted, DONE)
    assert answer.miscounted and not answer.truncated
    assert lost(answer)


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ((piece(1), b'data: {"error": {"message": "gone"}}\n\n', DONE), "gone"),
        ((piece(1),), "without [DONE]"),
        (WHOLE[:-1], "without [DONE]"),
        ((piece(1), httpx.ReadError("reset")), "ReadError"),
        ((piece(1), b"data: not json\n\n"), "JSONDecodeError"),
        ((b'data: {"choices": [{}]}\n\n',), "KeyError"),
        ((b"data: 7\n\n",), "TypeError"),
        ((b'data: "\xff"\n\n',), "UnicodeDecodeError"),
    ],
)
async def test_what_goes_wrong_is_told_and_counted(
    items: tuple[bytes | Exception, ...], told: str
) -> None:
    answer = await heard(*items)
    assert answer.failed and answer.error is not None and told in answer.error
    assert not answer.truncated and not answer.miscounted
    assert lost(answer)


async def test_a_refusal_is_a_failure_with_its_words() -> None:
    answer = await heard(b'{"error": {"message": "no engine"}}', status=503)
    assert answer.error is not None and "503" in answer.error and "no engine" in answer.error


@pytest.mark.parametrize(("breaks", "asked", "failed"), [(1, 2, False), (2, 2, True)])
async def test_a_stale_connection_is_asked_again_once(
    breaks: int, asked: int, failed: bool
) -> None:
    seen = 0

    def serve(request: httpx.Request) -> httpx.Response:
        nonlocal seen
        seen += 1
        if seen <= breaks:
            raise httpx.ReadError("closed meanwhile")
        return httpx.Response(200, stream=Body(WHOLE))

    transport = httpx.MockTransport(serve)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answer = await ask(client, question(1, "model", TOKENS))
    assert (seen, answer.failed) == (asked, failed)


async def test_an_answer_that_breaks_is_never_asked_again() -> None:
    answer = await heard(piece(1), httpx.ReadError("cut"))
    assert answer.failed and answer.ids == [1]


async def test_callers_go_on_until_stopped_and_all_answers_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer of a service that falls silent is a lost one, not one that never was."""
    silent = asyncio.Event()
    enough = asyncio.Event()
    served = 0

    async def serve(request: httpx.Request) -> httpx.Response:
        nonlocal served
        served += 1
        if served <= 6:
            return httpx.Response(200, stream=Body(WHOLE))
        enough.set()
        await silent.wait()
        raise AssertionError("never reached")

    client = httpx.AsyncClient(transport=httpx.MockTransport(serve), base_url="http://service")
    monkeypatch.setattr(Service, "client", lambda self: client)
    load = Load(Service("http://service", "key", "", "model"), streams=2, tokens=TOKENS)
    await load.start()
    await asyncio.wait_for(enough.wait(), 60)
    answers = await load.stop(deadline=0.5)
    whole = [one for one in answers if not one.failed]
    assert len(whole) == 6 and not any(one.truncated for one in whole)
    assert len({one.number for one in answers}) == len(answers)
    assert any(one.error == "the answer did not end" for one in answers)
    assert load.running == 0


class Asked(Load):
    """Callers whose answers come at once."""

    enough: asyncio.Event

    async def ask(self, asked: dict[str, Any], answer: Answer) -> None:
        assert asked["seed"] == answer.number
        if len(self.answers) >= 10:
            self.enough.set()
        await asyncio.sleep(0)


async def test_the_next_load_has_conversations_of_its_own() -> None:
    """Those of the one before live where its fault left them: all on one engine."""
    asked: list[set[int]] = []
    for _ in range(2):
        load = Asked(Service("http://service", "key", "", "model"), streams=2, tokens=TOKENS)
        load.enough = asyncio.Event()
        await load.start()
        await asyncio.wait_for(load.enough.wait(), 60)
        asked.append({answer.number for answer in await load.stop()})
    assert asked[0].isdisjoint(asked[1])


async def test_a_row_counts_each_kind() -> None:
    answers = [
        await heard(*WHOLE),
        await heard(piece(1), usage(1), DONE),
        await heard(piece(1)),
        await heard(piece(1), piece(2), piece(2), piece(3, finish="length"), usage(4), DONE),
    ]
    answers[0].failovers, answers[0].longest_gap = 1, 0.75
    one = row(FAULT, answers, 2, 12.4)
    assert (one.streams, one.moved, one.failed, one.truncated, one.doubled) == (4, 1, 1, 1, 1)
    assert one.lost == 5
    assert one.complaints == ("the stream ended without [DONE]",)
    cells = [cell.strip() for cell in table([one]).splitlines()[2].strip("|").split("|")]
    assert cells == ["a-fault", "what is done", "4", "1", "1", "1", "1", "2", "0.8", "12"]
    assert len(cells) == len(HEAD["en"])


async def test_only_an_outage_may_be_told_to_callers() -> None:
    told = await heard(b"{}", status=503)
    assert row(FAULT, [told], 0, 1.0).lost == 1
    assert row(OUTAGE, [told], 0, 1.0).lost == 0
    assert row(OUTAGE, [await heard(DONE)], 0, 1.0).lost == 1


def test_what_does_not_heal_says_no() -> None:
    assert row(FAULT, [], 0, None).cells()[-1] == "no"


class Spelling(Service):
    """A service that only spells tokens: each is a byte."""

    def client(self) -> httpx.AsyncClient:
        def spell(request: httpx.Request) -> httpx.Response:
            tokens = json.loads(request.content)["tokens"]
            return httpx.Response(200, json={"prompt": bytes(tokens).decode("utf-8", "replace")})

        return httpx.AsyncClient(transport=httpx.MockTransport(spell), base_url="http://service")


@pytest.mark.parametrize(
    "ids, text, wrong",
    [
        (b"ab", "ab", 0),
        (b"ab", "a", 1),
        (b"ab", "abb", 1),
        ("a你".encode(), "a你", 0),
        # what an engine keeps back until the letter is whole never comes at the end of an answer
        ("a你".encode()[:-1], "a", 0),
        ("a你".encode()[:-1], "", 1),
        ("你".encode()[:-1], "", 0),
        (b"a\xe4b", "a\ufffdb", 0),
        (b"a\xe4b", "ab", 1),
    ],
)
async def test_a_text_that_its_ids_do_not_spell_is_counted(
    ids: bytes, text: str, wrong: int, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = Answer(7, len(ids), list(ids), text)
    assert await misspelt(Spelling("", "", "", "model"), [answer]) == wrong
    assert ("answer 7" in capsys.readouterr().out) == bool(wrong)
