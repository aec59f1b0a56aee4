"""`/v1/sessions`: list, read, rename, delete and export the caller's conversations."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.auth import Caller
from gateway.errors import BadRequest
from gateway.export import as_markdown, file_name
from gateway.parts import Parts
from gateway.schemas import parse_json_object

LIMIT_AT_MOST = 100
LIMIT = 50
QUERY_AT_MOST = 200
TITLE_AT_MOST = 200


def routes(parts: Parts) -> list[BaseRoute]:
    async def page(request: Request) -> Response:
        caller = _enter(parts, request)
        query = request.query_params.get("q", "")[:QUERY_AT_MOST]
        cursor = request.query_params.get("cursor") or None
        found = await parts.sessions.page(
            caller.id, limit=_limit(request), cursor=cursor, query=query
        )
        return JSONResponse(found.public())

    async def read(request: Request) -> Response:
        caller = _enter(parts, request)
        session = await parts.sessions.get(caller.id, request.path_params["session_id"])
        return JSONResponse(session.public())

    async def rename(request: Request) -> Response:
        caller = _enter(parts, request)
        title = _title(parse_json_object(await request.body()))
        session_id = request.path_params["session_id"]
        await parts.sessions.rename(caller.id, session_id, title)
        return JSONResponse({"id": session_id, "title": title})

    async def delete(request: Request) -> Response:
        caller = _enter(parts, request)
        session_id = request.path_params["session_id"]
        await parts.sessions.delete(caller.id, session_id)
        return JSONResponse({"id": session_id, "deleted": True})

    async def export(request: Request) -> Response:
        caller = _enter(parts, request)
        ending = _format(request)
        session = await parts.sessions.get(caller.id, request.path_params["session_id"])
        return _file(session.public(), ending)

    path = "/v1/sessions/{session_id}"
    return [
        Route("/v1/sessions", page, methods=["GET"]),
        Route(path, read, methods=["GET"]),
        Route(path, rename, methods=["PATCH"]),
        Route(path, delete, methods=["DELETE"]),
        Route(f"{path}/export", export, methods=["GET"]),
    ]


def _enter(parts: Parts, request: Request) -> Caller:
    line = request.scope["tandem.log"]
    line.route = "sessions"
    caller = parts.keys.check(request.scope["headers"])
    line.key = caller.name
    return caller


def _limit(request: Request) -> int:
    given = request.query_params.get("limit", str(LIMIT))
    if not given.isdecimal() or not 1 <= int(given) <= LIMIT_AT_MOST:
        raise BadRequest(f"limit must be a number from 1 to {LIMIT_AT_MOST}.", param="limit")
    return int(given)


def _title(body: dict[str, Any]) -> str:
    title = body.get("title")
    if not isinstance(title, str) or not title.strip() or len(title) > TITLE_AT_MOST:
        raise BadRequest(f"title must be a text of 1 to {TITLE_AT_MOST} characters.", param="title")
    return " ".join(title.split())


def _format(request: Request) -> str:
    ending = request.query_params.get("format", "json")
    if ending not in ("json", "md"):
        raise BadRequest("format must be json or md.", param="format")
    return ending


def _file(session: dict[str, Any], ending: str) -> Response:
    if ending == "md":
        content, media = as_markdown(session).encode(), "text/markdown; charset=utf-8"
    else:
        content = orjson.dumps(session, option=orjson.OPT_INDENT_2)
        media = "application/json"
    name = quote(file_name(session, ending))
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{name}"}
    return Response(content, media_type=media, headers=headers)
