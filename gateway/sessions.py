"""Conversations in Redis: to whom they belong, what was said, and who may add to them now.

Owns `tandem:session:*`: read, rename, delete; a turn's begin, commit and release. A session of
somebody else is as absent as one that never was. Not here: the list of sessions
(session_index.py), the running turn's log (turns.py), trimming (history.py).
"""

import json
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import BadRequest, Conflict, NotFound, SessionStoreUnavailable
from gateway.history import Message
from gateway.session_index import Page, SessionIndex, Summary, owner_key, session_key, summary
from gateway.session_scripts import (
    BEGIN,
    COMMIT,
    DELETE,
    RELEASE,
    RENAME,
    ScriptRunner,
    as_fields,
    as_text,
)

TURNS_AT_MOST: Final = 200
MESSAGE_BYTES: Final = 256 * 1024
SESSION_BYTES: Final = 4 * 1024 * 1024
TITLE_CHARACTERS: Final = 60
SESSION_LEASE_MS: Final = 30_000
# A gateway is taken for dead when it has not renewed its turn for so long.
TURN_LEASE_MS: Final = 4_000
NO_LOG: Final = -1

Clock = Callable[[], float]


@dataclass(frozen=True)
class Session:
    head: Summary
    system: str
    messages: list[Message]

    def public(self) -> dict[str, Any]:
        messages = [message.public() for message in self.messages]
        return {**self.head.public(), "system": self.system, "messages": messages}


@dataclass(frozen=True)
class TurnRef:
    """One turn, and by `run` one gateway's right to write it."""

    owner: str
    session_id: str
    turn_id: str
    run: str

    def keys(self) -> list[str]:
        head, turn = session_key(self.session_id), f"tandem:turn:{self.turn_id}"
        lease, events = f"{turn}:lease", f"{turn}:events"
        return [head, f"{head}:messages", f"{head}:turn", turn, lease, events,
                owner_key(self.owner)]  # fmt: skip


@dataclass(frozen=True)
class Opening:
    """What a caller wants to begin. Without a session id a new session is made."""

    owner: str
    session_id: str | None
    turn_id: str
    prompt: str
    system: str | None
    resumable: bool
    #: the Plan's JSON: what a take-over needs before the first entry is logged
    request: str = ""


@dataclass(frozen=True)
class Begun:
    ref: TurnRef
    system: str
    history: list[Message]


@dataclass(frozen=True)
class AlreadyAnswered:
    session_id: str
    answer: Message


@dataclass(frozen=True)
class Orphan:
    """The session's last turn lost its gateway: somebody has to end it before the next."""

    session_id: str
    turn_id: str


@dataclass(frozen=True)
class LastEntry:
    """How the log of a resumable turn ends; `number` is its place in the list."""

    number: int
    json: str


WITHOUT_LOG: Final = LastEntry(NO_LOG, "")


class SessionStore:
    def __init__(
        self,
        scripts: ScriptRunner,
        *,
        gateway: str,
        ttl_seconds: int,
        record_seconds: int,
        clock: Clock,
    ) -> None:
        self._scripts = scripts
        self._gateway = gateway
        self._ttl = ttl_seconds
        self._record_seconds = record_seconds
        self._clock = clock
        self._index = SessionIndex(scripts)

    def now_ms(self) -> int:
        return int(self._clock() * 1000)

    async def get(self, owner: str, session_id: str) -> Session:
        """Reading keeps a session alive, as adding to it does."""
        head, body = session_key(session_id), f"{session_key(session_id)}:messages"
        flat, raw = await self._scripts.pipeline(("HGETALL", head), ("LRANGE", body, 0, -1))
        fields = as_fields(flat)
        if fields.get("owner") != owner:
            raise session_not_found()
        kept = (head, body, owner_key(owner))
        await self._scripts.quietly(*[("EXPIRE", key, self._ttl) for key in kept])
        messages = [Message.from_json(as_text(message)) for message in raw]
        return Session(summary(session_id, fields), fields.get("system", ""), messages)

    async def page(self, owner: str, *, limit: int, cursor: str | None, query: str) -> Page:
        return await self._index.page(owner, limit=limit, cursor=cursor, query=query)

    async def rename(self, owner: str, session_id: str, title: str) -> None:
        head = session_key(session_id)
        keys = [head, f"{head}:messages", owner_key(owner)]
        if not await self._scripts.run(RENAME, keys, [owner, title, self._ttl]):
            raise session_not_found()

    async def delete(self, owner: str, session_id: str) -> None:
        head = session_key(session_id)
        keys = [head, f"{head}:messages", f"{head}:turn", owner_key(owner)]
        if not await self._scripts.run(DELETE, keys, [owner, session_id]):
            raise session_not_found()

    async def begin(self, opening: Opening) -> Begun | AlreadyAnswered | Orphan:
        """The session is this turn's until commit or release, or until its lease runs out."""
        check_size(opening.prompt, "prompt")
        check_size(opening.system or "", "system")
        created = opening.session_id is None
        session_id = opening.session_id or new_id("sess")
        ref = TurnRef(opening.owner, session_id, opening.turn_id, secrets.token_hex(8))
        answer = await self._scripts.run(BEGIN, ref.keys(), self._begin_args(opening, ref, created))
        outcome = as_text(answer[0])
        if outcome == "elsewhere":
            found = Opening(**{**opening.__dict__, "session_id": as_text(answer[1])})
            return await self.begin(found)
        if created and outcome == "ok":
            await self._prune(opening.owner)
        return _begun(opening, ref, outcome, answer)

    def _begin_args(self, opening: Opening, ref: TurnRef, created: bool) -> list[str | int]:
        return [
            ref.owner, ref.turn_id, ref.run, self.now_ms(), self._ttl, SESSION_LEASE_MS,
            TURN_LEASE_MS, int(created), ref.session_id, title_of(opening.prompt),
            opening.system or "", self._record_seconds, self._gateway, int(opening.resumable),
            TURNS_AT_MOST, SESSION_BYTES, len(opening.prompt.encode()), opening.request,
        ]  # fmt: skip

    async def _prune(self, owner: str) -> None:
        try:
            await self._index.prune(owner, self.now_ms() - self._ttl * 1000)
        except SessionStoreUnavailable:
            return

    async def commit(
        self, ref: TurnRef, messages: tuple[Message, Message], system: str, last: LastEntry
    ) -> str:
        """Both messages at once. `saved`, or why there is no place for them any more: `gone`
        (the session), `fenced` (another turn, or another gateway, has it)."""
        question, answer = (capped(message) for message in messages)
        args: list[str | int] = [
            ref.turn_id, ref.run, ref.session_id, question.to_json(), answer.to_json(),
            self.now_ms(), self._ttl, system, self._record_seconds, last.number, last.json,
        ]  # fmt: skip
        return as_text(await self._scripts.run(COMMIT, ref.keys(), args))

    async def release(self, ref: TurnRef, last: LastEntry = WITHOUT_LOG) -> str:
        """The turn ends with nothing to keep."""
        args: list[str | int] = [
            ref.turn_id, ref.run, ref.session_id, self._record_seconds, last.number, last.json,
        ]  # fmt: skip
        return as_text(await self._scripts.run(RELEASE, ref.keys(), args))


def _begun(
    opening: Opening, ref: TurnRef, outcome: str, answer: list[Any]
) -> Begun | AlreadyAnswered | Orphan:
    if outcome == "ok":
        history = [Message.from_json(as_text(message)) for message in answer[2]]
        stored = as_text(answer[1])
        return Begun(ref, stored if opening.system is None else opening.system, history)
    if outcome == "done":
        return AlreadyAnswered(ref.session_id, Message.from_json(as_text(answer[1])))
    if outcome == "orphan":
        return Orphan(ref.session_id, as_text(answer[1]))
    raise _refusal(outcome, answer)


def _refusal(outcome: str, answer: list[Any]) -> Exception:
    if outcome == "busy":
        return turn_in_progress(as_text(answer[1]), int(answer[2]))
    if outcome == "missing":
        return session_not_found()
    if outcome == "full":
        return session_full()
    return BadRequest(
        "This turn_id was used before, for another conversation. Make a new one for each turn, "
        "or leave it out.",
        param="turn_id",
        code="turn_id_taken",
    )


def turn_in_progress(turn_id: str, lease_ms: int) -> Conflict:
    return Conflict(
        f"Another turn ({turn_id}) is being answered in this session. Wait for its end, or stop "
        f"it with POST /v1/chat/{turn_id}/stop, and send this one again.",
        code="turn_in_progress",
        param="session_id",
        retry_after=float(max(1, min(5, math.ceil(lease_ms / 1000)))),
    )


def session_full() -> BadRequest:
    return BadRequest(
        f"This session is full: it may hold {TURNS_AT_MOST} turns and "
        f"{SESSION_BYTES // 1024} KiB of text. Begin a new one by leaving session_id out.",
        code="session_full",
        param="session_id",
    )


def session_not_found() -> NotFound:
    return NotFound(
        "There is no such session. It may have expired, or been deleted; leave session_id out "
        "to begin a new one.",
        code="session_not_found",
        param="session_id",
    )


def check_size(text: str, param: str) -> None:
    size = len(text.encode())
    if size > MESSAGE_BYTES:
        raise BadRequest(
            f"{param} has {size} bytes; a message may have {MESSAGE_BYTES}. Shorten it, or send "
            "it in parts.",
            code="message_too_long",
            param=param,
        )


def capped(message: Message) -> Message:
    """An answer cannot be refused for its length any more, so its end is cut, and marked."""
    raw = message.content.encode()
    if len(raw) <= MESSAGE_BYTES:
        return message
    content = raw[:MESSAGE_BYTES].decode(errors="ignore")
    return Message(**{**message.__dict__, "content": content, "truncated": True})


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


def title_of(prompt: str) -> str:
    line = " ".join(prompt.split())
    if len(line) <= TITLE_CHARACTERS:
        return line
    return line[: TITLE_CHARACTERS - 1].rstrip() + "…"


def entry_json(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
