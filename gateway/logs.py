"""JSON logs: one object a line on standard output.

A request's line has ids, counts and seconds; never a prompt, an answer or a key.
Not here: when a request's line is written (middleware/access_log.py).
"""

from __future__ import annotations

import datetime
import logging
import sys
from dataclasses import dataclass
from typing import Any

import orjson

# What every record has; anything else was given as `extra` and belongs into the line.
_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one JSON object. Stacks go to operators only, never to callers."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        line |= fields if fields is not None else _extras(record)
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _ORDINARY}


def setup(level: str) -> None:
    """All loggers of the process write JSON to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # What no line says need not be found out for each (logging, «Optimization»).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        chatty = logging.getLogger(name)
        chatty.handlers.clear()
        chatty.propagate = True
    logging.getLogger("uvicorn.access").disabled = True


@dataclass(slots=True)
class RequestLog:
    """What is known of one request; filled in on its way. Seconds are monotonic differences."""

    request_id: str
    method: str
    path: str
    started: float
    route: str = "other"
    key: str = ""
    engine: str = ""
    status: int = 0
    outcome: str = ""
    ttft: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failovers: int = 0
    response_started: bool = False

    def fields(self, seconds: float) -> dict[str, Any]:
        """The line's fields; those that say nothing are left out."""
        line: dict[str, Any] = {
            "request_id": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "outcome": self.outcome,
            "seconds": round(seconds, 4),
        }
        for name in ("key", "engine", "prompt_tokens", "completion_tokens", "failovers"):
            if value := getattr(self, name):
                line[name] = value
        if self.ttft is not None:
            line["ttft"] = round(self.ttft, 4)
        return line
