"""The composition root: makes the parts, joins routes and middleware, starts and ends the tasks.

A request goes  request_id -> errors_told -> body_limit -> routes, and within a route
auth -> limits -> admission -> engines -> relay. See each file's first lines for what it owns.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from starlette.types import ASGIApp

from gateway import backup_note
from gateway.admission import Admission
from gateway.auth import KeyRing
from gateway.chat_turn import ChatTurn
from gateway.context_counter import ContextCounter
from gateway.engine_client import EngineClient
from gateway.engine_verdict import hang_seconds
from gateway.engines import EnginePool
from gateway.front import front
from gateway.health_watch import HealthWatch
from gateway.lifecycle import Lifecycle
from gateway.limits import Limits
from gateway.loop_watch import LoopWatch
from gateway.metrics import Metrics
from gateway.parts import Parts
from gateway.relay import Relay
from gateway.routes import chat, completions, health, messages, models, sessions, status, usage
from gateway.session_scripts import ScriptRunner
from gateway.sessions import SessionStore
from gateway.settings import Settings
from gateway.turn_plan import TurnParts
from gateway.turns import TurnStore
from gateway.usage import Usage

REDIS_CONNECT_SECONDS = 0.5
REDIS_SECONDS = 2.0
REDIS_CONNECTIONS = 256
REDIS_RETRIES = 3
PING_SECONDS = 2.0
END_SECONDS = 10.0

log = logging.getLogger("gateway.app")


def build(settings: Settings) -> tuple[ASGIApp, Parts]:
    """Everything but the server. No I/O happens before the application's start."""
    store = _redis(settings)
    client = EngineClient()
    parts = _parts(settings, store, client)
    rooms = (completions, chat, sessions, models, messages, status, usage, health)
    routes = [route for room in rooms for route in room.routes(parts)]
    hot = completions.hot(parts)
    return front(parts, routes, lambda _: _life(parts, store, client), hot), parts


def _redis(settings: Settings) -> Any:
    return redis.asyncio.Redis.from_url(
        settings.redis_url,
        password=settings.redis_password,
        socket_connect_timeout=REDIS_CONNECT_SECONDS,
        socket_timeout=REDIS_SECONDS,
        max_connections=REDIS_CONNECTIONS,
        health_check_interval=15,
        # The library's own first pause may be longer than our deadlines: after a restart of
        # Redis every kept connection would cost a request its answer.
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), REDIS_RETRIES),
        decode_responses=False,
    )


def _parts(settings: Settings, store: Any, client: EngineClient) -> Parts:
    metrics = Metrics()
    monotonic = time.monotonic
    pool = EnginePool(
        settings.engines, max_inflight=settings.max_inflight_per_engine, clock=monotonic
    )
    admission = Admission(
        pool.capacity, settings.queue_length, settings.queue_seconds, metrics, monotonic
    )
    pool.on_change(lambda _: admission.wake())
    pool.on_change(lambda engine: None if engine.alive else client.drop_idle(engine))
    relay = Relay(
        pool,
        client,
        metrics,
        queue_seconds=settings.queue_seconds,
        stall_seconds=settings.stall_seconds,
        first_token_seconds=settings.first_token_seconds,
    )
    counter = ContextCounter(relay, model=settings.model_name, monotonic=monotonic)
    scripts = ScriptRunner(store)
    gateway, record = settings.gateway_name, settings.resume_seconds
    turns = TurnStore(scripts, gateway=gateway, record_seconds=record)
    sessions_store = SessionStore(
        scripts,
        gateway=gateway,
        ttl_seconds=settings.session_ttl_seconds,
        record_seconds=record,
        clock=time.time,
    )
    turn_parts = TurnParts(
        sessions_store,
        turns,
        relay,
        admission,
        counter,
        monotonic,
        lambda outcome: metrics.sessions_saved.labels(outcome).inc(),
    )
    return Parts(
        settings=settings,
        metrics=metrics,
        lifecycle=Lifecycle(monotonic),
        keys=KeyRing(settings.api_keys_file, monotonic),
        limits=Limits(store, settings.rate_limit_rpm, monotonic),
        usage=Usage(store, lambda: datetime.datetime.now(datetime.UTC)),
        pool=pool,
        client=client,
        admission=admission,
        relay=relay,
        sessions=sessions_store,
        counter=counter,
        chat_turn=ChatTurn(
            turn_parts,
            model=settings.model_name,
            resumed=lambda outcome: metrics.turn_resumes.labels(outcome).inc(),
        ),
    )


@contextlib.asynccontextmanager
async def _life(parts: Parts, store: Any, client: EngineClient) -> AsyncIterator[None]:
    """The background tasks, from the first request to the last."""
    watch = HealthWatch(
        parts.pool,
        client,
        store,
        parts.settings.health_interval_seconds,
        time.monotonic,
        parts.metrics,
        model=parts.settings.model_name,
        hang=hang_seconds(parts.settings.stall_seconds),
    )
    loop_watch = LoopWatch(parts.settings.loop_stall_seconds)
    loop_watch.start()
    jobs: list[Coroutine[Any, Any, None]] = [
        watch.run(),
        parts.usage.run(),
        parts.limits.run(),
        _ping(parts.metrics, store),
    ]
    tasks = [asyncio.create_task(job) for job in jobs]
    log.info("the gateway serves", extra={"gateway": parts.settings.gateway_name})
    try:
        yield
    finally:
        await _end(parts, tasks)
        loop_watch.stop()
        await client.aclose()
        await store.aclose()


async def _end(parts: Parts, tasks: list[asyncio.Task[None]]) -> None:
    try:
        async with asyncio.timeout(END_SECONDS + 2):
            await parts.chat_turn.aclose(END_SECONDS)
    except TimeoutError:
        log.warning("some turns were not saved in time")
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=END_SECONDS)


async def _ping(metrics: Metrics, store: Any) -> None:
    """Keeps gateway_redis_up true to life."""
    while True:
        try:
            async with asyncio.timeout(PING_SECONDS):
                await store.ping()
            metrics.redis_up.set(1)
            metrics.last_backup.set(await backup_note.read(store))
        except (RedisError, OSError, TimeoutError):
            metrics.redis_up.set(0)
        await asyncio.sleep(PING_SECONDS)
