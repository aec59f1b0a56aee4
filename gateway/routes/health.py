"""For machines: is this process alive, can an engine answer, what do the metrics say.

`/internal/engines` and `/metrics` are for the inner networks; the door never routes them.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.errors import NoEngine, Overloaded
from gateway.parts import Parts

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def routes(parts: Parts) -> list[BaseRoute]:
    async def healthz(request: Request) -> Response:
        request.scope["tandem.log"].route = "healthz"
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        request.scope["tandem.log"].route = "readyz"
        if parts.lifecycle.stopping:
            raise Overloaded("This gateway is stopping.", code="gateway_stopping", retry_after=1)
        if not any(engine.usable for engine in parts.pool.engines):
            raise NoEngine()
        return JSONResponse({"status": "ready"})

    async def metrics(request: Request) -> Response:
        request.scope["tandem.log"].route = "metrics"
        parts.metrics.draining.set(parts.lifecycle.stopping)
        return Response(parts.metrics.exposition(), media_type=METRICS_TYPE)

    async def engines(request: Request) -> Response:
        request.scope["tandem.log"].route = "internal"
        return JSONResponse(overview(parts))

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/internal/engines", engines),
    ]


def overview(parts: Parts) -> dict[str, Any]:
    """What scripts ask for while they drain, roll out and wait."""
    return {
        "gateway": parts.settings.gateway_name,
        "draining": parts.lifecycle.stopping,
        "in_flight": parts.admission.inside,
        "queued": parts.admission.queued,
        "running": parts.lifecycle.running,
        "engines": [
            {
                "name": engine.name,
                "state": str(engine.state),
                "reason": engine.reason,
                "alive": engine.alive,
                "in_flight": engine.in_flight,
                "running": engine.running,
                "waiting": engine.waiting,
                "kv_cache": engine.kv_cache,
                "drain": engine.drain,
            }
            for engine in parts.pool.engines
        ],
    }
