"""A gateway front with real keys, limits and admission, and a relay that plays a script."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from gateway.admission import Admission
from gateway.auth import KeyRing
from gateway.engines import EnginePool
from gateway.front import front
from gateway.lifecycle import Lifecycle
from gateway.limits import Limits
from gateway.metrics import Metrics
from gateway.parts import Parts
from gateway.routes import completions, health, models, status
from gateway.settings import Settings
from gateway.sse import DONE
from gateway.usage import Usage

KEY = "tandem-test-key"
MODEL = "some-model"


class ScriptedRelay:
    """Plays `items`; `hold` makes it wait after them; `refusal` is raised before the first."""

    def __init__(self) -> None:
        self.items: list[bytes] = [b'data: {"n": 1}\n\n', b'data: {"n": 2}\n\n']
        self.refusal: Exception | None = None
        self.broken_after_first: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.failovers = 0
        self.calls: list[Any] = []
        self.closed = asyncio.Event()

    async def stream(self, call: Any, pen: Any = None) -> AsyncIterator[bytes]:
        self.calls.append(call)
        if self.refusal is not None:
            raise self.refusal
        answer = call.outcome
        answer.engine, answer.failovers = "vllm-a", self.failovers
        answer.prompt_tokens, answer.completion_tokens, answer.ttft = 7, 2, 0.01
        try:
            for item in self.items:
                yield item
                if self.broken_after_first is not None:
                    raise self.broken_after_first
            if self.hold is not None:
                await self.hold.wait()
            answer.outcome = "ok"
            yield DONE
        finally:
            self.closed.set()

    async def complete(self, call: Any) -> tuple[int, dict[str, str], bytes]:
        self.calls.append(call)
        if self.refusal is not None:
            raise self.refusal
        call.outcome.engine, call.outcome.outcome = "vllm-a", "ok"
        return 200, {"content-type": "application/json", "x-tandem-engine": "vllm-a"}, b"{}"

    async def forward(self, method: str, path: str, body: bytes = b"") -> Any:
        model = {"id": MODEL, "object": "model", "root": "/secret/path", "max_model_len": 4096}
        return 200, {}, httpx.Response(200, json={"data": [model]}).content


def _no_redis() -> Any:
    async def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("no Redis in unit tests")

    return SimpleNamespace(eval=away)


@pytest.fixture
def relay() -> ScriptedRelay:
    return ScriptedRelay()


@pytest.fixture
def make_parts(tmp_path: Path, relay: ScriptedRelay) -> Callable[..., Parts]:
    def make(**variables: str) -> Parts:
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        (tmp_path / "api_keys").write_text(f"alice {digest}\n")
        environ = {"SECRETS_DIR": str(tmp_path), "MODEL_NAME": MODEL, **variables}
        settings = Settings.load(environ)
        metrics, clock = Metrics(), time.monotonic
        pool = EnginePool(settings.engines, max_inflight=2, clock=clock)
        redis = _no_redis()
        return Parts(
            settings=settings,
            metrics=metrics,
            lifecycle=Lifecycle(clock),
            keys=KeyRing(settings.api_keys_file, clock),
            limits=Limits(redis, settings.rate_limit_rpm, clock),
            usage=Usage(redis, lambda: datetime.datetime.now(datetime.UTC)),
            pool=pool,
            client=cast(Any, None),
            admission=Admission(lambda: 2, 0, 0.1, metrics, clock),
            relay=cast(Any, relay),
            sessions=cast(Any, None),
            counter=cast(Any, SimpleNamespace(context_length=4096)),
            chat_turn=cast(Any, None),
        )

    return make


@pytest.fixture
def parts(make_parts: Callable[..., Parts]) -> Parts:
    return make_parts()


def application(parts: Parts) -> Any:
    rooms = (completions, models, status, health)
    return front(parts, [route for room in rooms for route in room.routes(parts)])


@pytest.fixture
async def client(parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(parts) as opened:
        yield opened


def open_client(parts: Parts) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(application(parts), raise_app_exceptions=False),
        base_url="http://gateway",
        headers={"authorization": f"Bearer {KEY}"},
        timeout=30,
    )


def counted(parts: Parts, outcome: str, route: str = "chat_completions") -> float:
    labels = {"route": route, "outcome": outcome}
    return parts.metrics.registry.get_sample_value("gateway_requests_total", labels) or 0.0


def refused(response: httpx.Response) -> dict[str, Any]:
    """The error in a response, after a check that its shape is OpenAI's."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    assert isinstance(error["message"], str)
    return cast("dict[str, Any]", error)
