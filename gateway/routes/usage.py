"""`GET /v1/usage?days=N`: what the caller's own key used."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.errors import BadRequest
from gateway.parts import Parts
from gateway.usage import KEPT_DAYS


def routes(parts: Parts) -> list[BaseRoute]:
    async def usage(request: Request) -> Response:
        line = request.scope["tandem.log"]
        line.route = "usage"
        caller = parts.keys.check(request.scope["headers"])
        line.key = caller.name
        days = request.query_params.get("days", "7")
        if not days.isdecimal() or len(days) > 2 or not 1 <= int(days) <= KEPT_DAYS:
            raise BadRequest(f"days must be a number from 1 to {KEPT_DAYS}.", param="days")
        return JSONResponse(
            {"key": caller.name, "data": await parts.usage.read(caller.id, int(days))}
        )

    return [Route("/v1/usage", usage)]
