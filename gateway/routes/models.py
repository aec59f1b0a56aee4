"""`GET /v1/models` and `/v1/models/{id}`: the one model, as an engine describes it."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.errors import EngineFailed, NotFound
from gateway.parts import Parts

# What OpenAI's clients read, and the context length that vLLM adds; the rest is the engine's own.
SHOWN = ("id", "object", "created", "owned_by", "max_model_len")


def routes(parts: Parts) -> list[BaseRoute]:
    async def models(request: Request) -> Response:
        _enter(parts, request)
        return JSONResponse({"object": "list", "data": [await _model(parts)]})

    async def model(request: Request) -> Response:
        _enter(parts, request)
        asked = request.path_params["name"]
        if asked != parts.settings.model_name:
            raise NotFound(
                f"The model «{asked[:100]}» does not exist here. This service has "
                f"«{parts.settings.model_name}».",
                param="model",
                code="model_not_found",
            )
        return JSONResponse(await _model(parts))

    return [Route("/v1/models", models), Route("/v1/models/{name:path}", model)]


def _enter(parts: Parts, request: Request) -> None:
    line = request.scope["tandem.log"]
    line.route = "models"
    line.key = parts.keys.check(request.scope["headers"]).name


async def _model(parts: Parts) -> dict[str, Any]:
    _, _, body = await parts.relay.forward("GET", "/v1/models")
    try:
        found = orjson.loads(body)["data"][0]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise EngineFailed() from None
    return {name: found[name] for name in SHOWN if name in found}
