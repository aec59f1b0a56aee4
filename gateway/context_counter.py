"""How many tokens a chat prompt has, as the engine counts them, and how long the context is.

Owns the `/tokenize` call and the memory of the context's length. What is done with the figures:
history.py.
"""

import json
from collections.abc import Callable
from typing import Any, Final, Protocol

from gateway.errors import EngineFailed, engine_error
from gateway.history import ChatMessage, Counted

# An engine may come back with another profile: its context is looked at anew now and then.
REMEMBER_SECONDS: Final = 60.0


class Forwarder(Protocol):
    async def forward(
        self, method: str, path: str, body: bytes
    ) -> tuple[int, dict[str, str], bytes]: ...


class ContextCounter:
    def __init__(self, relay: Forwarder, *, model: str, monotonic: Callable[[], float]) -> None:
        self._relay = relay
        self._model = model
        self._monotonic = monotonic
        self._length: int | None = None
        self._seen_at = 0.0

    @property
    def context_length(self) -> int | None:
        fresh = self._monotonic() - self._seen_at < REMEMBER_SECONDS
        return self._length if fresh else None

    async def count(self, messages: list[ChatMessage]) -> Counted:
        asked = {"model": self._model, "messages": messages, "add_generation_prompt": True}
        body = json.dumps(asked, ensure_ascii=False).encode()
        status, _, answer = await self._relay.forward("POST", "/tokenize", body)
        if status != 200:
            raise engine_error(status, answer)
        try:
            found: dict[str, Any] = json.loads(answer)
            counted = Counted(int(found["count"]), int(found["max_model_len"]))
        except (ValueError, KeyError, TypeError) as error:
            raise EngineFailed("The engine's count of the prompt could not be read.") from error
        self._length, self._seen_at = counted.context_length, self._monotonic()
        return counted
