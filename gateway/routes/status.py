"""`GET /v1/status`: how the service stands, for the page and for people. No addresses."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.parts import Parts


def routes(parts: Parts) -> list[BaseRoute]:
    async def status(request: Request) -> Response:
        line = request.scope["tandem.log"]
        line.route = "status"
        line.key = parts.keys.check(request.scope["headers"]).name
        engines = parts.pool.engines
        return JSONResponse(
            {
                "model": parts.settings.model_name,
                "context_length": parts.counter.context_length,
                "ready": any(engine.usable for engine in engines),
                "engines": [
                    {
                        "name": engine.name,
                        "state": str(engine.state),
                        "running": engine.running,
                        "waiting": engine.waiting,
                        "kv_cache": engine.kv_cache,
                    }
                    for engine in engines
                ],
                "queue_depth": parts.admission.queued,
                "ttft_p50_seconds": _median(parts),
            }
        )

    return [Route("/v1/status", status)]


def _median(parts: Parts) -> float | None:
    """The upper bound of the bucket that holds the median; None before the first answer."""
    for family in parts.metrics.ttft.collect():
        counts = [s for s in family.samples if s.name.endswith("_bucket")]
        whole = counts[-1].value if counts else 0
        for sample in counts:
            if whole and sample.value * 2 >= whole:
                bound = float(sample.labels["le"])
                return bound if bound != float("inf") else None
    return None
