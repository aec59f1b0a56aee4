"""The log of a running turn in Redis: what was said so far, who runs it, how another takes over.

Owns `tandem:turn:*`. A record is a list of numbered entries, each a piece of the answer with its
token ids, so that text and ids cannot disagree. Not here: when entries are written (turn_log.py),
how the answer is made (turn_run.py).
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import NotFound
from gateway.history import Message
from gateway.session_index import session_key
from gateway.session_scripts import ScriptRunner, as_fields, as_text
from gateway.sessions import SESSION_LEASE_MS, TURN_LEASE_MS, TurnRef, entry_json
from gateway.turn_scripts import APPEND, HEARTBEAT, LET_GO, READ, STOP, TAKE_OVER

# A reader on the other gateway counts as watching for so long after its last look.
WATCHED_MS: Final = 3_000


@dataclass
class Entry:
    """One numbered entry: a piece of the answer, or an event of its own (`turn`, `done`,
    `error`)."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    finish: str | None = None
    event: str | None = None
    data: dict[str, Any] | None = None

    def to_json(self) -> str:
        if self.event:
            return entry_json({"e": self.event, "d": self.data})
        fields: dict[str, Any] = {"t": self.text, "i": self.ids}
        return entry_json({**fields, "f": self.finish} if self.finish else fields)

    @classmethod
    def from_json(cls, raw: str) -> "Entry":
        found = json.loads(raw)
        if "e" in found:
            return cls(event=found["e"], data=found["d"])
        return cls(text=found["t"], ids=found["i"], finish=found.get("f"))


@dataclass(frozen=True)
class Beat:
    status: str
    watched: bool


@dataclass(frozen=True)
class View:
    """A turn as its log shows it, from the entry that was asked for."""

    state: str
    alive: bool
    session_id: str
    resumable: bool
    entries: list[Entry]

    @property
    def orphaned(self) -> bool:
        return self.state == "running" and not self.alive


@dataclass(frozen=True)
class Taken:
    """A turn that this gateway took over, with all that is needed to go on."""

    ref: TurnRef
    resumable: bool
    request: dict[str, Any] | None
    progress: str
    prompt_ids: list[int]
    entries: list[Entry]
    #: of the session; its messages only while nothing is logged
    system: str
    history: list[Message]

    @property
    def text(self) -> str:
        return "".join(entry.text for entry in self.entries)

    @property
    def ids(self) -> list[int]:
        return [token for entry in self.entries for token in entry.ids]

    @property
    def finish(self) -> str | None:
        return next((e.finish for e in reversed(self.entries) if e.finish), None)


def turn_keys(turn_id: str) -> list[str]:
    base = f"tandem:turn:{turn_id}"
    return [base, f"{base}:lease", f"{base}:events"]


class TurnStore:
    def __init__(self, scripts: ScriptRunner, *, gateway: str, record_seconds: int) -> None:
        self._scripts = scripts
        self._gateway = gateway
        self._record_seconds = record_seconds

    async def append(
        self, ref: TurnRef, first: int, entries: Sequence[Entry], fields: dict[str, str]
    ) -> str:
        """Entries and fields in one atomic step. `written`; `stop`: written, and somebody wants
        the turn stopped; `fenced`: another gateway runs it; `gone`: the store lost it."""
        flat = [part for pair in fields.items() for part in pair]
        lines = [entry.to_json() for entry in entries]
        args: list[str | int] = [
            ref.run,
            TURN_LEASE_MS,
            self._record_seconds,
            first,
            len(fields),
            *flat,
            *lines,
        ]
        return as_text(await self._scripts.run(APPEND, turn_keys(ref.turn_id), args))

    async def heartbeat(self, ref: TurnRef) -> Beat:
        head = session_key(ref.session_id)
        keys = [*turn_keys(ref.turn_id), f"{head}:turn", head, _watched(ref.turn_id)]
        args: list[str | int] = [
            ref.run,
            TURN_LEASE_MS,
            self._record_seconds,
            ref.turn_id,
            SESSION_LEASE_MS,
        ]
        status, watched = await self._scripts.run(HEARTBEAT, keys, args)
        return Beat(as_text(status), bool(int(watched)))

    async def read(self, owner: str, turn_id: str, first: int = 0) -> View:
        keys = [*turn_keys(turn_id), _watched(turn_id)]
        answer = await self._scripts.run(READ, keys, [owner, first, WATCHED_MS])
        if as_text(answer[0]) == "missing":
            raise turn_not_found()
        state, alive, session_id, resumable, lines = answer
        entries = [Entry.from_json(as_text(line)) for line in lines]
        return View(
            as_text(state), bool(alive), as_text(session_id), as_text(resumable) == "1", entries
        )

    async def ask_stop(self, owner: str, turn_id: str) -> View:
        answer = await self._scripts.run(STOP, turn_keys(turn_id)[:2], [owner])
        if as_text(answer[0]) == "missing":
            raise turn_not_found()
        state, alive, session_id = answer
        return View(as_text(state), bool(alive), as_text(session_id), False, [])

    async def let_go(self, ref: TurnRef) -> bool:
        """Whether the turn was still this run's, and is now to be had by another gateway."""
        return bool(await self._scripts.run(LET_GO, turn_keys(ref.turn_id)[:2], [ref.run]))

    async def take_over(self, owner: str, turn_id: str, session_id: str) -> Taken | None:
        """None: it is not to be had, because it ended, lives, or its session has moved on."""
        head = session_key(session_id)
        ref = TurnRef(owner, session_id, turn_id, secrets.token_hex(8))
        keys = [*turn_keys(turn_id), f"{head}:turn", head, f"{head}:messages"]
        args: list[str | int] = [
            ref.run,
            self._gateway,
            turn_id,
            TURN_LEASE_MS,
            SESSION_LEASE_MS,
            owner,
        ]
        answer = await self._scripts.run(TAKE_OVER, keys, args)
        if as_text(answer[0]) != "taken":
            return None
        return _taken(ref, as_fields(answer[1]), *answer[2:])


def _taken(
    ref: TurnRef, fields: dict[str, str], lines: Sequence[Any], system: Any, before: Sequence[Any]
) -> Taken:
    return Taken(
        ref=ref,
        resumable=fields.get("resumable") == "1",
        request=json.loads(fields["request"]) if "request" in fields else None,
        progress=fields.get("progress", ""),
        prompt_ids=json.loads(fields.get("prompt_ids", "[]")),
        entries=[Entry.from_json(as_text(line)) for line in lines],
        system=as_text(system),
        history=[Message.from_json(as_text(message)) for message in before],
    )


def _watched(turn_id: str) -> str:
    return f"tandem:turn:{turn_id}:watched"


def turn_not_found() -> NotFound:
    return NotFound(
        "There is no such turn, or its events are no longer kept. The finished answer is in its "
        "session: GET /v1/sessions/{id}.",
        code="turn_not_found",
    )
