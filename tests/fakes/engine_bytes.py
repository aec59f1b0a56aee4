"""What vLLM writes: the pieces of an answer as its detokenizer gives them, and their events."""

from __future__ import annotations

import json
from typing import Any


def generated(
    pieces: list[bytes],
    ids: list[int],
    groups: list[int],
    done: int,
    budget: int,
    body: dict[str, Any],
) -> Any:
    """(text, ids, finish_reason, stop_reason) for each event, as vLLM's detokenizer gives them."""
    stops = body.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    include = bool(body.get("include_stop_str_in_output"))
    hold = max(map(len, stops)) - 1 if stops and not include else 0
    raw, text, given, group, at = b"", "", 0, 0, done
    end = min(len(pieces), done + budget)
    while at < end:
        size = groups[group % len(groups)]
        group += 1
        fresh: list[int] = []
        found: tuple[int, str] | None = None
        while at < end and len(fresh) < size and found is None:
            raw += pieces[at]
            fresh.append(ids[at])
            at += 1
            decoded = raw.decode("utf-8", "replace")
            if not decoded.endswith("\ufffd"):
                text = decoded
            hits = [(text.find(s) + len(s), s) for s in stops if s in text]
            found = min(hits) if hits else None
        if found is not None:
            text = text[: found[0]] if include else text[: found[0] - len(found[1])]
            yield text[given:], fresh, "stop", found[1]
            return
        last = at == end
        shown = len(text) if last else max(given, len(text) - hold)
        finish = ("stop" if at == len(pieces) else "length") if last else None
        yield text[given:shown], fresh, finish, None
        given = shown


def named(chat: bool, name: str) -> dict[str, Any]:
    kind = "chat.completion.chunk" if chat else "text_completion"
    return {"id": f"{name}-id", "object": kind, "created": 1700000000, "model": "m"}


def chunk(
    chat: bool, name: str, text: str, ids: list[int], finish: str | None, why: str | None
) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0}
    choice |= {"delta": {"content": text}} if chat else {"text": text}
    choice |= {"logprobs": None, "finish_reason": finish}
    if finish is not None or not chat:
        choice["stop_reason"] = why
    choice["token_ids"] = ids
    return named(chat, name) | {"choices": [choice]}


def aborted(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    last = json.loads(json.dumps(chunks[-1]))
    last["choices"][0] |= {"finish_reason": "abort", "token_ids": []}
    return last  # type: ignore[no-any-return]


def event(chunk: dict[str, Any]) -> bytes:
    text = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode() + b"\n\n"
