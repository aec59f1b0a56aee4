"""Settings: the only reader of the environment, `.env` and the secrets' folder. Frozen.

A wrong value stops the start with the variable's name, what it holds and what it should hold.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv import dotenv_values


class SettingsError(ValueError):
    """A variable that cannot be used. The message names it."""


def _fault(name: str, raw: str, expected: str) -> SettingsError:
    return SettingsError(f"{name}={raw!r} cannot be used: expected {expected}. Mend it in .env.")


def _whole(name: str, raw: str, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,12}", raw) or not least <= int(raw) <= most:
        raise _fault(name, raw, f"a whole number from {least} to {most}")
    return int(raw)


def _seconds(name: str, raw: str, least: float, most: float) -> float:
    try:
        value = float(raw)
    except ValueError:
        raise _fault(name, raw, f"seconds from {least:g} to {most:g}") from None
    if not least <= value <= most:
        raise _fault(name, raw, f"seconds from {least:g} to {most:g}")
    return value


def _engines(name: str, raw: str) -> Mapping[str, str]:
    """`vllm-a=http://vllm-a:8000,vllm-b=…` as name -> URL, in this order."""
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in raw.split(","))):
        engine, _, url = part.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", engine) or engine in found:
            raise _fault(name, raw, "different names, as in vllm-a=http://vllm-a:8000,…")
        if not re.fullmatch(r"http://[A-Za-z0-9_.\-\[\]:]+", url):
            raise _fault(name, raw, "an address for each, as in vllm-a=http://vllm-a:8000,…")
        found[engine] = url
    if not found:
        raise _fault(name, raw, "at least one engine, as in vllm-a=http://vllm-a:8000,…")
    return found


def _text(name: str, raw: str) -> str:
    if not raw:
        raise _fault(name, raw, "some text")
    return raw


def _level(name: str, raw: str) -> str:
    if raw.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise _fault(name, raw, "DEBUG, INFO, WARNING or ERROR")
    return raw.upper()


DEFAULTS: Mapping[str, str] = {
    "GATEWAY_NAME": "gateway-a",
    "GATEWAY_HOST": "0.0.0.0",
    "GATEWAY_PORT": "8080",
    "ENGINES": "vllm-a=http://vllm-a:8000,vllm-b=http://vllm-b:8000",
    "MODEL_NAME": "qwen2.5-7b-instruct",
    "REDIS_URL": "redis://redis:6379/0",
    "SECRETS_DIR": "/run/secrets",
    "MAX_INFLIGHT_PER_ENGINE": "64",
    "QUEUE_LENGTH": "256",
    "QUEUE_SECONDS": "30",
    "DRAIN_SECONDS": "120",
    "SESSION_TTL_SECONDS": "3600",
    "RESUME_SECONDS": "300",
    "MAX_BODY_BYTES": "4194304",
    "DEFAULT_MAX_TOKENS": "512",
    "FIRST_TOKEN_SECONDS": "120",
    "STALL_SECONDS": "8",
    "HEALTH_INTERVAL_SECONDS": "1",
    "LOG_LEVEL": "INFO",
    "RATE_LIMIT_RPM": "0",
    "LOOP_STALL_SECONDS": "30",
}
PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "GATEWAY_NAME": _text,
    "GATEWAY_HOST": _text,
    "GATEWAY_PORT": lambda name, raw: _whole(name, raw, 1, 65535),
    "ENGINES": _engines,
    "MODEL_NAME": _text,
    "REDIS_URL": _text,
    "SECRETS_DIR": lambda name, raw: Path(_text(name, raw)),
    "MAX_INFLIGHT_PER_ENGINE": lambda name, raw: _whole(name, raw, 1, 100_000),
    "QUEUE_LENGTH": lambda name, raw: _whole(name, raw, 0, 100_000),
    "QUEUE_SECONDS": lambda name, raw: _seconds(name, raw, 0, 600),
    "DRAIN_SECONDS": lambda name, raw: _seconds(name, raw, 0, 3600),
    "SESSION_TTL_SECONDS": lambda name, raw: _whole(name, raw, 60, 31_536_000),
    "RESUME_SECONDS": lambda name, raw: _whole(name, raw, 30, 86_400),
    "MAX_BODY_BYTES": lambda name, raw: _whole(name, raw, 1024, 268_435_456),
    "DEFAULT_MAX_TOKENS": lambda name, raw: _whole(name, raw, 1, 131_072),
    "FIRST_TOKEN_SECONDS": lambda name, raw: _seconds(name, raw, 1, 3600),
    "STALL_SECONDS": lambda name, raw: _seconds(name, raw, 4, 600),
    "HEALTH_INTERVAL_SECONDS": lambda name, raw: _seconds(name, raw, 0.1, 60),
    "LOG_LEVEL": _level,
    "RATE_LIMIT_RPM": lambda name, raw: _whole(name, raw, 0, 1_000_000),
    "LOOP_STALL_SECONDS": lambda name, raw: _seconds(name, raw, 1, 3600),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The names are the variables' own, in lower case. Seconds are seconds, bytes are bytes."""

    gateway_name: str
    gateway_host: str
    gateway_port: int
    engines: Mapping[str, str]
    model_name: str
    redis_url: str
    secrets_dir: Path
    max_inflight_per_engine: int
    queue_length: int
    queue_seconds: float
    drain_seconds: float
    session_ttl_seconds: int
    resume_seconds: int
    max_body_bytes: int
    default_max_tokens: int
    first_token_seconds: float
    stall_seconds: float
    health_interval_seconds: float
    log_level: str
    rate_limit_rpm: int
    loop_stall_seconds: float

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """From `environ`, or the process's environment over a `.env` in the working folder.

        Raises SettingsError naming the variable.
        """
        if environ is None:
            from_file = {k: v for k, v in dotenv_values(".env").items() if v is not None}
            environ = {**from_file, **os.environ}
        values: dict[str, Any] = {}
        for name, default in DEFAULTS.items():
            raw = environ.get(name, "").strip() or default
            values[name.lower()] = PARSERS[name](name, raw)
        return cls(**values)

    @property
    def redis_password(self) -> str | None:
        """From the secrets' folder; None when there is no such file or it is empty."""
        try:
            return (self.secrets_dir / "redis_password").read_text().strip() or None
        except FileNotFoundError:
            return None

    @property
    def api_keys_file(self) -> Path:
        return self.secrets_dir / "api_keys"
