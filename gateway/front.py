"""Routes and middleware around given parts: what a request meets first, and what a fault becomes.

    request_id -> errors_told -> body_limit -> (the hot paths | the framework's routes)

Not here: making the parts (app.py), serving (last_connections.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import InternalError, MethodNotAllowed, NotFound, TandemError
from gateway.middleware.body_limit import BodyLimit
from gateway.middleware.errors_told import ErrorsTold, error_headers
from gateway.middleware.request_id import RequestId
from gateway.parts import Parts
from gateway.schemas import validation_fault

Life = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def front(
    parts: Parts,
    routes: Sequence[BaseRoute],
    life: Life | None = None,
    hot: Mapping[str, ASGIApp] | None = None,
) -> ASGIApp:
    """The whole application around these parts. POSTs to the paths in `hot` go straight to them,
    around the framework's own layers, which cost more than all of ours."""

    def told(error: TandemError) -> Response:
        response = Response(error.response_bytes(), error.status)
        response.raw_headers = error_headers(error, parts.lifecycle.stopping)
        return response

    async def handler(request: Request, error: Exception) -> Response:
        return told(in_our_words(request, error))

    app = FastAPI(
        title="Tandem",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life,
        routes=list(routes),
        # The framework answers what nobody handles with a text of its own: so all are handled.
        exception_handlers={
            kind: handler
            for kind in (TandemError, HTTPException, RequestValidationError, Exception)
        },
    )
    limited = BodyLimit(_hot_first(hot or {}, app), parts.settings.max_body_bytes)
    return RequestId(ErrorsTold(limited, parts.lifecycle), parts.metrics)


def _hot_first(hot: Mapping[str, ASGIApp], app: ASGIApp) -> ASGIApp:
    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        known = scope["type"] == "http" and scope["method"] == "POST"
        handler = hot.get(scope["path"], app) if known else app
        await handler(scope, receive, send)

    return choose


def in_our_words(request: Request, error: Exception) -> TandemError:
    """What the framework or a fault of ours means to the caller."""
    if isinstance(error, TandemError):
        return error
    if isinstance(error, RequestValidationError):
        return validation_fault(error.errors())
    if isinstance(error, HTTPException) and error.status_code == 404:
        return NotFound()
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        hint = f" Use {allowed}." if allowed else ""
        return MethodNotAllowed(f"This path does not take {request.method}.{hint}")
    return InternalError()
