"""For operators: take an engine out, put it back, see how all stand.

    python -m gateway.admin drain vllm-a           new work and running streams go elsewhere
    python -m gateway.admin drain vllm-a --wait    no new work; running streams end by themselves
    python -m gateway.admin undrain vllm-a
    python -m gateway.admin status [--json]

Owns: the command line and what it prints. Not here: the flags (drain_flags.py), what they do
(engine.py). Exit codes: 0 done, 1 Redis cannot be reached, 2 wrong use or unknown engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio
from redis.exceptions import RedisError

from gateway import drain_flags
from gateway.engine import Drain
from gateway.settings import Settings, SettingsError

REDIS_SECONDS = 3.0
GATEWAY_SECONDS = 3.0
FOLLOWED_WITHIN = "Every gateway follows within a second or two."


@dataclass(frozen=True)
class Plan:
    """Where things are: the engines' names, Redis, and this gateway's own port."""

    engines: tuple[str, ...]
    connect: Callable[[], Any]
    gateway_url: str


def main(argv: Sequence[str] | None = None, plan: Plan | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        plan = plan or _plan(Settings.load())
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.command != "status" and arguments.engine not in plan.engines:
        print(
            f"There is no engine named {arguments.engine!r}. Engines: {', '.join(plan.engines)}.",
            file=sys.stderr,
        )
        return 2
    try:
        return asyncio.run(_run(arguments, plan))
    except (RedisError, OSError, TimeoutError) as error:
        print(
            f"Redis cannot be reached ({type(error).__name__}); nothing was changed. "
            "Check that it runs, and REDIS_URL.",
            file=sys.stderr,
        )
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.admin", description="Engines, by hand")
    commands = parser.add_subparsers(dest="command", required=True)
    drain = commands.add_parser("drain", help="take an engine out")
    drain.add_argument("engine")
    drain.add_argument("--wait", action="store_true", help="let running streams end by themselves")
    drain.add_argument(
        "--ttl",
        type=_seconds,
        default=drain_flags.FLAG_TTL_SECONDS,
        help="seconds after which the engine comes back by itself (default: a day)",
    )
    commands.add_parser("undrain", help="put an engine back").add_argument("engine")
    status = commands.add_parser("status", help="show drains and states")
    status.add_argument("--json", action="store_true", help="for scripts")
    return parser


def _seconds(text: str) -> int:
    seconds = int(text)
    if seconds < 1:
        raise argparse.ArgumentTypeError("must be at least 1 second")
    return seconds


async def _run(arguments: argparse.Namespace, plan: Plan) -> int:
    client = plan.connect()
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            flags = await _change(arguments, plan, client)
    finally:
        await client.aclose()
    if arguments.command == "status":
        _show(flags, await _gateway(plan.gateway_url), as_json=arguments.json)
    return 0


async def _change(
    arguments: argparse.Namespace, plan: Plan, client: Any
) -> dict[str, Drain | None]:
    """Do what was asked; returns the flags as they are afterwards."""
    name = getattr(arguments, "engine", "")
    if arguments.command == "drain":
        drain: Drain = "wait" if arguments.wait else "move"
        await drain_flags.write(client, name, drain, arguments.ttl)
        print(f"{name} is being drained ({drain}). {FOLLOWED_WITHIN}")
    elif arguments.command == "undrain":
        was_drained = await drain_flags.clear(client, name)
        done = f"is put back. {FOLLOWED_WITHIN}" if was_drained else "was not drained."
        print(f"{name} {done}")
    flags = await drain_flags.read(client, plan.engines)
    if arguments.command == "drain" and all(flags.values()):
        print("Warning: now every engine is drained; nobody answers.", file=sys.stderr)
    return flags


async def _gateway(url: str) -> dict[str, Any] | None:
    """What this gateway says about its engines; None when it does not answer in time."""
    try:
        async with asyncio.timeout(GATEWAY_SECONDS):
            return await asyncio.to_thread(_fetch, url)
    except (OSError, ValueError, TimeoutError):
        return None


def _fetch(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=GATEWAY_SECONDS) as response:
        return cast(dict[str, Any], json.load(response))


def _show(flags: dict[str, Drain | None], gateway: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"drains": flags, "gateway": gateway}))
        return
    engines = {} if gateway is None else {e["name"]: e for e in gateway.get("engines", [])}
    print(
        f"{'engine':<12} {'drain':<6} {'state':<9} {'in flight':>9} {'running':>8} {'waiting':>8}"
    )
    for name, drain in flags.items():
        seen = engines.get(name, {})
        cells = [str(seen.get(field, "?")) for field in ("in_flight", "running", "waiting")]
        print(
            f"{name:<12} {drain or '-':<6} {seen.get('state', '?')!s:<9} "
            f"{cells[0]:>9} {cells[1]:>8} {cells[2]:>8}  {seen.get('reason', '')}".rstrip()
        )
    if gateway is None:
        print("This gateway does not answer, so states are not known here.", file=sys.stderr)


def _plan(settings: Settings) -> Plan:
    def connect() -> Any:
        return redis.asyncio.Redis.from_url(
            settings.redis_url,
            password=settings.redis_password,
            socket_timeout=REDIS_SECONDS,
            socket_connect_timeout=REDIS_SECONDS,
        )

    url = f"http://127.0.0.1:{settings.gateway_port}/internal/engines"
    return Plan(tuple(settings.engines), connect, url)


if __name__ == "__main__":
    sys.exit(main())
