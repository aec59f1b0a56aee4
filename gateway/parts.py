"""The parts of a running gateway, as routes and middleware see them. Made in app.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

# Names only: whoever uses one part does not load all of them.
if TYPE_CHECKING:
    from gateway.admission import Admission
    from gateway.auth import KeyRing
    from gateway.chat_turn import ChatTurn
    from gateway.context_counter import ContextCounter
    from gateway.engine_client import EngineClient
    from gateway.engines import EnginePool
    from gateway.lifecycle import Lifecycle
    from gateway.limits import Limits
    from gateway.metrics import Metrics
    from gateway.relay import Relay
    from gateway.sessions import SessionStore
    from gateway.settings import Settings
    from gateway.usage import Usage


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings
    metrics: Metrics
    lifecycle: Lifecycle
    keys: KeyRing
    limits: Limits
    usage: Usage
    pool: EnginePool
    client: EngineClient
    admission: Admission
    relay: Relay
    sessions: SessionStore
    counter: ContextCounter
    chat_turn: ChatTurn

    def count_tokens(self, caller_id: str, prompt: int, completion: int) -> None:
        """Once for each answered request, whoever answered it."""
        tokens, metrics = self.metrics.tokens, self.metrics
        metrics.of(tokens, "prompt", caller_id).inc(prompt)
        metrics.of(tokens, "completion", caller_id).inc(completion)
        self.usage.count(caller_id, prompt, completion)
