"""What a client sees of a continued answer: one id, one role, one shape, whatever engine speaks.

Owns: building the client's events. Not here: reading an engine's (exact_answer.py).
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.answer import Progress
from gateway.continuation import Wish
from gateway.engine_events import event


class ClientEvents:
    def __init__(self, wanted: Wish, progress: Progress) -> None:
        self._wish = wanted
        self._progress = progress

    def role(self, role: str) -> bytes:
        """The first event of a chat answer, once."""
        progress = self._progress
        if progress.role_sent or not progress.begun:
            return b""
        progress.role_sent = True
        delta = {"role": role, "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        chunk = self._chunk([choice])
        if self._wish.token_ids:
            chunk["prompt_token_ids"] = progress.prompt_ids.tolist()
        return event(self._with_usage(chunk))

    def delta(
        self,
        text: str,
        ids: list[int],
        finish: str | None,
        stop_reason: Any,
        others: dict[str, Any],
    ) -> bytes:
        choice: dict[str, Any] = {"index": 0}
        first = b""
        if self._wish.chat:
            first = self.role("assistant")
            choice["delta"] = {"content": text, **others}
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": finish}
        if finish is not None or not self._wish.chat:
            choice["stop_reason"] = stop_reason
        if self._wish.token_ids:
            choice |= self._ids(ids)
        return first + event(self._with_usage(self._chunk([choice])))

    def usage(self, usage: dict[str, Any], fingerprint: str | None) -> bytes:
        chunk = self._chunk([]) | {"usage": usage}
        if fingerprint:
            chunk["system_fingerprint"] = fingerprint
        return event(chunk)

    def head(self) -> bytes:
        """The client's ordinary event up to the opening quote of its text."""
        text = b'"delta":{"content":"' if self._wish.chat else b'"text":"'
        empty = orjson.dumps(self._chunk([]))
        return b"data: " + empty.removesuffix(b"]}") + b'{"index":0,' + text

    def _ids(self, ids: list[int]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if not self._wish.chat and not self._progress.role_sent:
            self._progress.role_sent = True  # a completion has no role: its prompt's ids are sent
            fields["prompt_token_ids"] = self._progress.prompt_ids.tolist()
        return fields | {"token_ids": ids}

    def _with_usage(self, chunk: dict[str, Any]) -> dict[str, Any]:
        if self._wish.usage and self._wish.continuous_usage:
            prompt, completion = len(self._progress.prompt_ids), len(self._progress.ids)
            chunk["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
            }
        return chunk

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        progress = self._progress
        return {
            "id": progress.id,
            "object": "chat.completion.chunk" if self._wish.chat else "text_completion",
            "created": progress.created,
            "model": progress.model,
            "choices": choices,
        }
