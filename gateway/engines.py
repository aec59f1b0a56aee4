"""The engine pool: which engine gets the next request.

Owns: EnginePool.choose(), waiting for an engine, capacity; gives out Engine and its companions.
Not here: the state of one engine (engine.py), looking at engines (health_watch.py),
speaking to them (engine_client.py), how many requests may be inside (admission.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from gateway.ejection import Outcome
from gateway.engine import Drain, Engine, EngineState
from gateway.errors import NoEngine
from gateway.homes import Homes, affinity_key, load_bound, most_homes, rank

__all__ = ["Drain", "Engine", "EnginePool", "EngineState", "Outcome", "affinity_key"]

EVEN_SLACK = 2

log = logging.getLogger("gateway.engines")


class EnginePool:
    """All engines of this gateway, and the choice among them."""

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        max_inflight: int,
        clock: Callable[[], float],
        homes: Homes | None = None,
    ) -> None:
        """urls: engine name -> http://host:port"""
        self.engines = tuple(_engine(name, url, clock) for name, url in urls.items())
        self.by_name = {engine.name: engine for engine in self.engines}
        self._max_inflight = max_inflight
        self._homes = homes if homes is not None else Homes(clock)
        self._listeners: list[Callable[[Engine], None]] = []
        self._waiters: set[asyncio.Future[None]] = set()
        self._turn = 0
        for engine in self.engines:
            engine.connect(self.engines, self._changed)

    # Choosing ------------------------------------------------------------------------------

    def choose(self, key: str | None, *, exclude: frozenset[str] = frozenset()) -> Engine:
        """The engine for a request: its home while that is not overloaded, else the least loaded.

        A half-open engine gets one request as its trial.
        """
        for engine in self.engines:
            if engine.name not in exclude and engine.reason == "half-open":
                if engine.ejection.claim_trial():
                    return engine
        candidates = self._candidates(exclude)
        if not candidates:
            raise NoEngine()
        roomy = [e for e in candidates if e.in_flight < self._max_inflight] or candidates
        return self._least_loaded(roomy) if key is None else self._at_home(key, roomy)

    def _candidates(self, exclude: frozenset[str]) -> list[Engine]:
        tiers = [(e.tier, e) for e in self.engines if e.name not in exclude]
        best = min((tier for tier, _ in tiers if tier is not None), default=None)
        return [e for tier, e in tiers if tier is not None and tier == best]

    def _at_home(self, key: str, candidates: list[Engine]) -> Engine:
        home = self._homes.find(key)
        for engine in candidates:
            if engine.name == home and engine.in_flight < self._bound(candidates):
                return engine
        chosen = self._new_home(key, candidates)
        if home is None or self.by_name[home].tier is None:
            self._homes.settle(key, chosen.name)
        return chosen

    def _bound(self, candidates: list[Engine]) -> int:
        return load_bound(sum(e.in_flight for e in candidates), len(candidates))

    def _new_home(self, key: str, candidates: list[Engine]) -> Engine:
        """The rendezvous favourite, on which both gateways agree, unless that would be uneven: by
        what runs now, or by how many conversations live there."""
        favourite = max(candidates, key=lambda e: rank(key, e.name))
        least = self._least_loaded(candidates)
        if favourite.in_flight >= least.in_flight + EVEN_SLACK:
            return least
        homes = self._homes.recent
        total = sum(homes[e.name] for e in candidates) + 1
        if homes[favourite.name] < most_homes(total, len(candidates)):
            return favourite
        return min(candidates, key=lambda e: homes[e.name])

    def _least_loaded(self, candidates: list[Engine]) -> Engine:
        """Ties are broken in turn, so that light traffic is shared too."""
        self._turn += 1
        turn = self._turn % len(candidates)
        return min(candidates[turn:] + candidates[:turn], key=lambda e: e.in_flight)

    # Waiting -------------------------------------------------------------------------------

    async def wait_usable(
        self,
        timeout: float,  # noqa: ASYNC109 - the signature says how long, asyncio.timeout does it
        *,
        exclude: frozenset[str] = frozenset(),
    ) -> None:
        """Return as soon as an engine outside `exclude` may get work; NoEngine after timeout."""
        try:
            async with asyncio.timeout(timeout):
                while not self._candidates(exclude):
                    await self._next_change()
        except TimeoutError:
            raise NoEngine() from None

    async def _next_change(self) -> None:
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(change)
        try:
            await change
        finally:
            self._waiters.discard(change)

    def capacity(self) -> int:
        """How many requests may be inside at once."""
        return self._max_inflight * len(self._candidates(frozenset()))

    def on_change(self, callback: Callable[[Engine], None]) -> Callable[[], None]:
        """Call back with the engine whose state changed; returns unsubscribe."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def _changed(self, engine: Engine) -> None:
        for change in self._waiters:
            if not change.done():
                change.set_result(None)
        for callback in list(self._listeners):
            try:
                callback(engine)
            except Exception:
                log.exception("a listener failed on a change", extra={"engine": engine.name})


def _engine(name: str, url: str, clock: Callable[[], float]) -> Engine:
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError(f"engine {name} needs an address like http://host:port")
    return Engine(name, parts.hostname, parts.port or 80, clock)
