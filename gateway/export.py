"""A conversation as a file: JSON for machines, Markdown for people. Pure."""

from __future__ import annotations

import datetime
import re
from typing import Any

NAMES = {"user": "You", "assistant": "Assistant", "system": "System"}


def as_markdown(session: dict[str, Any]) -> str:
    """`session` in the shape of GET /v1/sessions/{id}."""
    parts = [f"# {_one_line(session['title']) or 'Conversation'}\n"]
    if session.get("system"):
        parts.append(f"## System\n\n{session['system']}\n")
    for message in session["messages"]:
        name = NAMES.get(message["role"], message["role"])
        parts.append(f"## {name} · {_time(message.get('created_at'))}\n\n{message['content']}\n")
    return "\n".join(parts)


def file_name(session: dict[str, Any], ending: str) -> str:
    """Letters of any script, no path, no quotes; the id when the title has none."""
    title = re.sub(r"[^\w-]+", "-", _one_line(session["title"])).strip("-")[:60]
    return f"{title or session['id']}.{ending}"


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _time(seconds: Any) -> str:
    if not isinstance(seconds, int | float):
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
