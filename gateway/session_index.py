"""A caller's list of sessions: newest first, page by page, searched by title.

Owns how `tandem:owner:*` is read. What a session is, and who adds to it: sessions.py.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import BadRequest
from gateway.session_scripts import ScriptRunner, as_fields, as_text

# A search looks at so many titles for one answer; the cursor goes on from there.
STEPS_AT_MOST: Final = 20
STEP: Final = 100

Place = tuple[int, str]


@dataclass(frozen=True)
class Summary:
    id: str
    title: str
    created_at: int
    updated_at: int
    turns: int

    def public(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "title": self.title,
            "created_at": self.created_at // 1000,
            "updated_at": self.updated_at // 1000,
            "turns": self.turns,
        }


@dataclass(frozen=True)
class Page:
    sessions: list[Summary]
    next_cursor: str | None

    def public(self) -> dict[str, Any]:
        data = [session.public() for session in self.sessions]
        more = self.next_cursor is not None
        return {"object": "list", "data": data, "has_more": more, "next_cursor": self.next_cursor}


def session_key(session_id: str) -> str:
    return f"tandem:session:{session_id}"


def owner_key(owner: str) -> str:
    return f"tandem:owner:{owner}:sessions"


def summary(session_id: str, fields: dict[str, str]) -> Summary:
    return Summary(
        id=session_id,
        title=fields.get("title", ""),
        created_at=int(fields.get("created_at") or 0),
        updated_at=int(fields.get("updated_at") or 0),
        turns=int(fields.get("turns") or 0),
    )


class SessionIndex:
    def __init__(self, scripts: ScriptRunner) -> None:
        self._scripts = scripts

    async def page(self, owner: str, *, limit: int, cursor: str | None, query: str) -> Page:
        place = decode_cursor(cursor) if cursor else None
        wanted: list[Summary] = []
        matches = _title_contains(query)
        for _ in range(STEPS_AT_MOST):
            members, more = await self._step(owner, place)
            for session, at in await self._alive(owner, members):
                if not matches(session):
                    continue
                if len(wanted) == limit:
                    return Page(wanted, encode_cursor(place) if place else None)
                wanted.append(session)
                place = at
            if not more:
                return Page(wanted, None)
            if len(wanted) < limit:
                place = members[-1] if members else place
        return Page(wanted, encode_cursor(place) if place else None)

    async def _step(self, owner: str, place: Place | None) -> tuple[list[Place], bool]:
        """The sessions after `place`, and whether there may be more after them. Of those with
        one and the same time the smaller id comes later."""
        top = "+inf" if place is None else str(place[0])
        words = (owner_key(owner), top, "-inf", "WITHSCORES", "LIMIT", 0, STEP)
        (answer,) = await self._scripts.pipeline(("ZREVRANGEBYSCORE", *words))
        members = list(_places(answer))
        after = [member for member in members if place is None or member < place]
        return after, len(members) == STEP and bool(after)

    async def _alive(self, owner: str, places: list[Place]) -> list[tuple[Summary, Place]]:
        """The index outlives its sessions: ids of expired ones are removed when met."""
        if not places:
            return []
        heads = await self._scripts.pipeline(
            *[("HGETALL", session_key(session_id)) for _, session_id in places]
        )
        found: list[tuple[Summary, Place]] = []
        gone: list[str] = []
        for place, head in zip(places, heads, strict=True):
            fields = as_fields(head)
            if fields.get("owner") == owner:
                found.append((summary(place[1], fields), place))
            else:
                gone.append(place[1])
        if gone:
            await self._scripts.quietly(("ZREM", owner_key(owner), *gone))
        return found

    async def prune(self, owner: str, before_ms: int) -> None:
        """Some of the oldest ids whose sessions have expired, so that the index of a caller who
        never lists does not grow without end."""
        words = (owner_key(owner), "-inf", before_ms, "WITHSCORES", "LIMIT", 0, STEP)
        (answer,) = await self._scripts.pipeline(("ZRANGEBYSCORE", *words))
        await self._alive(owner, list(_places(answer)))


def _title_contains(query: str) -> Callable[[Summary], bool]:
    wanted = query.casefold()
    return lambda session: wanted in session.title.casefold()


def _places(answer: Sequence[Any]) -> "list[Place]":
    """Pairs of member and score: flat, or nested, as the protocol's version has it."""
    if answer and isinstance(answer[0], (list, tuple)):
        return [(int(float(score)), as_text(member)) for member, score in answer]
    pairs = zip(answer[::2], answer[1::2], strict=True)
    return [(int(float(score)), as_text(member)) for member, score in pairs]


def encode_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place[0]}:{place[1]}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> Place:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        score, _, session_id = base64.urlsafe_b64decode(padded.encode()).decode().partition(":")
        return int(score), session_id
    except (ValueError, binascii.Error) as error:
        raise BadRequest(
            "The cursor is not one that this service gave. Take next_cursor from the last page, "
            "or leave cursor out to begin with the newest session.",
            param="cursor",
        ) from error
