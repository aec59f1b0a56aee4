"""Trimming: oldest turns first, the system prompt kept, the engine asked only where needed."""

from __future__ import annotations

import pytest

from gateway.errors import ContextLengthExceeded
from gateway.history import ChatMessage, Counted, Fitted, Message, Question, fit

CONTEXT = 1000


class WordCounter:
    """An engine for which each word is a token."""

    def __init__(self) -> None:
        self.asked: list[list[ChatMessage]] = []

    async def __call__(self, messages: list[ChatMessage]) -> Counted:
        self.asked.append(messages)
        return Counted(sum(len(m["content"].split()) for m in messages), CONTEXT)


@pytest.fixture
def count() -> WordCounter:
    return WordCounter()


def turns(number: int, words: int) -> list[Message]:
    made: list[Message] = []
    for turn in range(number):
        made.append(Message("user", f"q{turn} " + "word " * (words - 1), 1, f"t{turn}"))
        answer = f"a{turn} " + "word " * (words - 1)
        made.append(Message("assistant", answer, 1, f"t{turn}", "stop"))
    return made


def question(history: list[Message], prompt: str = "now", **more: object) -> Question:
    fields = {"max_tokens": 100, "max_tokens_given": True, "system": "be brief", **more}
    return Question(history=history, prompt=prompt, **fields)  # type: ignore[arg-type]


def check_shape(fitted: Fitted, history: list[Message]) -> None:
    """The system prompt, then whole turns without a gap up to the last, then the prompt."""
    kept = history[2 * fitted.trimmed_turns :]
    assert [m["content"] for m in fitted.messages] == [
        "be brief", *[m.content for m in kept], "now",
    ]  # fmt: skip
    assert [m["role"] for m in fitted.messages[:2]] == ["system", "user"]


async def test_a_short_history_is_not_counted_once_the_context_is_known(
    count: WordCounter,
) -> None:
    history = turns(2, 3)
    fitted = await fit(question(history), CONTEXT, count)
    assert (fitted.trimmed_turns, count.asked) == (0, [])
    check_shape(fitted, history)


async def test_the_first_turn_learns_the_context(count: WordCounter) -> None:
    fitted = await fit(question([]), None, count)
    assert len(count.asked) == 1
    assert fitted.max_tokens == 100


@pytest.mark.parametrize(("number", "words"), [(20, 50), (200, 40), (9, 120), (50, 11)])
async def test_a_long_history_loses_its_oldest_turns_and_no_more_than_needed(
    count: WordCounter, number: int, words: int
) -> None:
    history = turns(number, words)
    fitted = await fit(question(history), CONTEXT, count)
    check_shape(fitted, history)
    assert fitted.trimmed_turns > 0
    used = (await count(fitted.messages)).tokens
    assert used + 100 <= CONTEXT
    # An eighth of the context is left free, and what one turn more would have taken.
    assert used + 100 + CONTEXT // 8 + 3 * 2 * words >= CONTEXT
    assert len(count.asked) < 14


async def test_a_cut_is_kept_on_the_next_turn(count: WordCounter) -> None:
    history = turns(20, 50)
    first = await fit(question(history), CONTEXT, count)
    answer = Message("assistant", "short", 1, "t20", "stop", trimmed=first.trimmed_turns)
    longer = [*history, Message("user", "now", 1, "t20"), answer]
    second = await fit(question(longer), CONTEXT, count)
    assert second.trimmed_turns == first.trimmed_turns
    assert second.messages[: len(first.messages)] == first.messages


async def test_the_last_answers_own_count_spares_the_engine(count: WordCounter) -> None:
    """Bytes alone would not show that this fits."""
    history = turns(4, 100)
    counted = Message(
        "assistant", history[-1].content, 1, "t3", "stop", prompt_tokens=600, completion_tokens=100
    )
    fitted = await fit(question([*history[:-1], counted]), CONTEXT, count)
    assert (fitted.trimmed_turns, count.asked) == (0, [])
    await fit(question(history), CONTEXT, count)
    assert len(count.asked) == 1


async def test_one_prompt_that_is_too_long_is_told_with_both_numbers(count: WordCounter) -> None:
    with pytest.raises(ContextLengthExceeded) as refusal:
        await fit(question(turns(3, 50), "word " * 1200), CONTEXT, count)
    assert (refusal.value.status, refusal.value.code) == (400, "context_length_exceeded")
    assert "1000" in refusal.value.message
    assert "1202" in refusal.value.message


async def test_a_default_of_ours_gives_way_and_a_callers_figure_does_not(
    count: WordCounter,
) -> None:
    prompt = "word " * 950
    fitted = await fit(question([], prompt, max_tokens_given=False), CONTEXT, count)
    assert fitted.max_tokens == 48
    with pytest.raises(ContextLengthExceeded):
        await fit(question([], prompt), CONTEXT, count)


async def test_a_hopelessly_long_history_is_not_sent_to_be_counted(count: WordCounter) -> None:
    history = turns(100, 4000)
    fitted = await fit(question(history), CONTEXT, count)
    check_shape(fitted, history)
    assert all(
        sum(len(m["content"]) for m in asked) <= CONTEXT * 16 + 20_000 for asked in count.asked
    )


def test_a_message_survives_json() -> None:
    message = Message(
        "assistant", "落 🌧", 5, "t", "stop", "vllm-a", 3, completion_tokens=2, trimmed=1
    )
    assert Message.from_json(message.to_json()) == message
    assert message.public() == {
        "role": "assistant", "content": "落 🌧", "created_at": 5, "turn_id": "t",
        "finish_reason": "stop", "engine": "vllm-a",
    }  # fmt: skip
    assert "content" in Message("user", "", 0, "t").public()
