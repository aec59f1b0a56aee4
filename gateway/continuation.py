"""Whether an answer can be continued token for token on another engine, and with which request.

Owns: which request fields allow it, what the first engine is asked, what the next one is asked,
where to cut when a letter is half generated. Not here: mapping what comes back (exact_answer.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from gateway.answer import CHAT, COMPLETIONS, Progress

#: Asks the engine that is to go on: (method, path, body) -> its JSON answer.
Ask = Callable[[str, str, dict[str, Any]], Awaitable[dict[str, Any]]]

SEED_LIMIT = 2**63 - 1

# Fields that only shape the prompt: its token ids replace them.
_PROMPT_FIELDS = frozenset(
    "messages prompt add_generation_prompt continue_final_message add_special_tokens documents "
    "chat_template chat_template_kwargs reasoning_effort truncate_prompt_tokens "
    "truncation_side".split()
)
# Fields that mean the same at every token, whatever came before.
_STEADY_FIELDS = frozenset(
    "model seed temperature top_p top_k min_p repetition_penalty stop stop_token_ids ignore_eos "
    "include_stop_str_in_output skip_special_tokens spaces_between_special_tokens "
    "allowed_token_ids priority cache_salt vllm_xargs stream_interval".split()
)
# Fields that the gateway answers for itself.
_OWN_FIELDS = frozenset(
    "max_tokens max_completion_tokens stream stream_options return_token_ids user metadata "
    "session_id prompt_cache_key request_id safety_identifier store".split()
)
# Fields that forbid it, unless they have one of these values.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "length_penalty": (1,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "min_tokens": (0,),
    "bad_words": ([],),
    "echo": (False,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (True, False),
    "use_beam_search": (False,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "include_reasoning": (True,),
    "return_prompt_text": (False,),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asked for, as far as the relay has to know it."""

    path: str
    body: dict[str, Any]
    exact: bool
    usage: bool
    continuous_usage: bool
    token_ids: bool
    stops: tuple[str, ...]
    include_stop: bool

    @property
    def chat(self) -> bool:
        return self.path == CHAT

    @property
    def budget(self) -> int | None:
        """How many tokens the answer may have; None: as many as fit."""
        if self.chat:
            value = self.body.get("max_completion_tokens")
            value = self.body.get("max_tokens") if value is None else value
            return None if value is None else int(value)
        value = self.body.get("max_tokens")
        return 16 if value is None else int(value)


def wish(path: str, body: dict[str, Any]) -> Wish:
    options = body.get("stream_options") or {}
    stops = _stops(body)
    return Wish(
        path=path,
        body=body,
        exact=_exact(path, body, stops),
        usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        token_ids=bool(body.get("return_token_ids")),
        stops=stops or (),
        include_stop=bool(body.get("include_stop_str_in_output")),
    )


def first_request(wanted: Wish, seed: int, *, stream: bool = True) -> dict[str, Any]:
    """The client's own request, with what the relay needs to be able to go on elsewhere."""
    body = dict(wanted.body)
    if body.get("seed") is None:
        body["seed"] = seed
    if not stream:
        body["stream"] = False
        body.pop("stream_options", None)
        return body
    body |= _streaming(wanted)
    if wanted.exact:
        body["return_token_ids"] = True
    return body


def next_request(wanted: Wish, progress: Progress, budget: int) -> dict[str, Any]:
    """Go on after the tokens so far, for at most `budget` more."""
    body = {name: value for name, value in wanted.body.items() if name in _STEADY_FIELDS}
    prompt = progress.prompt_ids + progress.ids
    body |= _streaming(wanted)
    body |= {
        "prompt": prompt.tolist(),
        "max_tokens": budget,
        "seed": seed_at(progress.seed, len(progress.ids)),
        "return_token_ids": True,
    }
    return body


def _streaming(wanted: Wish) -> dict[str, Any]:
    options: dict[str, Any] = {"include_usage": True}
    if wanted.continuous_usage:
        options["continuous_usage_stats"] = True
    body: dict[str, Any] = {"stream": True, "stream_options": options}
    if wanted.exact and wanted.stops:
        # The gateway finds the stop strings: text that an engine held back would die with it.
        body["include_stop_str_in_output"] = True
    return body


def seed_at(seed: int, position: int) -> int:
    """An engine draws its random numbers from the seed on: repeating those of the first tokens
    would make the first words likely again. So each seam has its own, repeatable seed."""
    if position == 0:
        return seed
    digest = blake2b(f"{seed}:{position}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & SEED_LIMIT


async def tokens_left(wanted: Wish, progress: Progress, ask: Ask) -> int:
    """How many tokens may still be generated."""
    if wanted.budget is not None:
        return wanted.budget - len(progress.ids)
    models = await ask("GET", "/v1/models", {})
    context = min(int(card["max_model_len"]) for card in models["data"])
    return context - len(progress.prompt_ids) - len(progress.ids)


#: How far back the end of a letter is looked for, in tokens.
LOOK_BACK = 16


async def cut_to_whole_text(progress: Progress, ask: Ask) -> None:
    """Drop tokens at the end whose text is only half a letter.

    The next engine could not finish that letter: it only gives text for its own tokens.
    """
    ids = progress.ids
    whole = progress.whole_high
    while whole > progress.whole_low and progress.whole_high - whole < LOOK_BACK:
        window = ids[max(0, whole - LOOK_BACK) : whole]
        text = await ask("POST", "/detokenize", {"tokens": window.tolist()})
        if not str(text["prompt"]).endswith("\ufffd"):
            break
        whole -= 1
    del ids[whole:]
    progress.whole_low = progress.whole_high = whole


# Is it sound? --------------------------------------------------------------------------------


def _exact(path: str, body: dict[str, Any], stops: tuple[str, ...] | None) -> bool:
    if path not in (CHAT, COMPLETIONS) or stops is None:
        return False
    if any(not _allows(name, value) for name, value in body.items()):
        return False
    if stops and (body.get("stop_token_ids") or body.get("skip_special_tokens") is False):
        # With stop strings the text includes what stopped it; only a special token is invisible.
        return False
    return _plain_messages(body) if path == CHAT else _one_prompt(body.get("prompt"))


def _allows(name: str, value: Any) -> bool:
    if name in _PROMPT_FIELDS or name in _STEADY_FIELDS or name in _OWN_FIELDS or value is None:
        return True
    if name == "logprobs":
        return value is False  # 0 asks a completion for the logprobs of its own tokens
    return value in _NEUTRAL.get(name, ())


def _stops(body: dict[str, Any]) -> tuple[str, ...] | None:
    """The stop strings; None when they are not what vLLM takes."""
    stop = body.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
        return None
    return tuple(stops)


def _plain_messages(body: dict[str, Any]) -> bool:
    """Only text: an image's place in the prompt cannot be given as token ids."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return False
    contents = [message.get("content") for message in messages if isinstance(message, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return all(
        isinstance(p, str) or (isinstance(p, dict) and p.get("type") == "text") for p in parts
    )


def _one_prompt(prompt: Any) -> bool:
    if isinstance(prompt, str):
        return True
    return isinstance(prompt, list) and bool(prompt) and all(type(i) is int for i in prompt)
