"""The faults: what is done to a running instance, one function each.

A fault is injected while callers read their answers, and undone (or healed by the service itself)
before the next one. Crashes are real signals from the host.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from scripts.chaos import processes
from scripts.chaos.instance import ENGINES, GATEWAYS, Instance
from scripts.chaos.load import Load
from scripts.chaos.turns import TurnLoad

# How long a stopped or cut part stays so, where the service itself does not end it.
HOLD_SECONDS = 15.0


@dataclass(frozen=True)
class Fault:
    """`inject` returns when the fault is over or left to the service to heal."""

    name: str
    what: str
    inject: Callable[[Instance], None]
    # Parts that must run as another process afterwards: only then is a healthy look to be believed.
    renews: tuple[str, ...] = ()
    # Nobody is left to answer: callers may be told so, but never get a wrong or a cut answer.
    outage: bool = False
    # The callers: of /v1/chat/completions, or of /v1/chat, whose turns outlive their gateway.
    load: type[Load] = Load
    # It restarts engines one after the other, which needs the cores: so many callers at most.
    callers: int = 1000


class CannotInject(RuntimeError):
    """This machine lacks what the fault needs; the words say what."""


def _signal_engine(which: str, number: signal.Signals) -> Callable[[Instance], None]:
    def inject(instance: Instance) -> None:
        processes.send(instance.engine_processes(ENGINES[0], which), number)

    return inject


def _kill_engine(instance: Instance) -> None:
    processes.send(processes.descendants(instance.pid(ENGINES[0])), signal.SIGKILL)


def _terminate_engine(instance: Instance) -> None:
    processes.send([instance.pid(ENGINES[0])], signal.SIGTERM)


def _pause_engine(instance: Instance) -> None:
    """As `docker pause` does: every process of the engine, its watchdog too."""
    paused = processes.descendants(instance.pid(ENGINES[0]))
    processes.send(paused, signal.SIGSTOP)
    try:
        time.sleep(HOLD_SECONDS)
    finally:
        processes.send(paused, signal.SIGCONT)


def _both_engines(instance: Instance) -> None:
    for engine in ENGINES:
        processes.send(processes.descendants(instance.pid(engine)), signal.SIGKILL)


def _drain(instance: Instance) -> None:
    try:
        instance.call("in_gateway", GATEWAYS[0], "gateway.admin", "drain", ENGINES[0])
        time.sleep(5)
    finally:
        instance.call("in_gateway", GATEWAYS[0], "gateway.admin", "undrain", ENGINES[0])


def _kill_gateway(instance: Instance) -> None:
    processes.send(processes.descendants(instance.pid(GATEWAYS[0])), signal.SIGKILL)


def _stop_gateway(instance: Instance) -> None:
    """An orderly stop; the supervisor or the restart policy starts it anew."""
    instance.call("recreate", GATEWAYS[0], seconds=240)


def _reload_door(instance: Instance) -> None:
    processes.send([_nginx_master(instance)], signal.SIGHUP)


def _nginx_master(instance: Instance) -> int:
    """In a container the main process is a small init; Nginx's master is under it."""
    masters = processes.find(instance.pid("nginx"), "nginx: master")
    return masters[0] if masters else instance.pid("nginx")


def _kill_redis(instance: Instance) -> None:
    processes.send(processes.descendants(instance.pid("redis")), signal.SIGKILL)


def _pause_redis(instance: Instance) -> None:
    paused = processes.descendants(instance.pid("redis"))
    processes.send(paused, signal.SIGSTOP)
    try:
        time.sleep(HOLD_SECONDS)
    finally:
        processes.send(paused, signal.SIGCONT)


def _slow_redis(instance: Instance) -> None:
    """Every command waits for most of half a second, again and again."""
    until = time.monotonic() + HOLD_SECONDS
    while time.monotonic() < until:
        instance.redis("client", "pause", "400", "all")
        time.sleep(0.1)


def _full_redis(instance: Instance) -> None:
    before = instance.redis("config", "get", "maxmemory").splitlines()[-1]
    try:
        instance.redis("config", "set", "maxmemory", "1")
        time.sleep(5)
    finally:
        instance.redis("config", "set", "maxmemory", before)


def _read_only_redis(instance: Instance) -> None:
    try:
        instance.redis("replicaof", "127.0.0.1", "1")
        time.sleep(5)
    finally:
        instance.redis("replicaof", "no", "one")


def _cut(action: str) -> Callable[[Instance], None]:
    """Between the gateways and one engine, by the host's packet filter (try mode)."""

    def inject(instance: Instance) -> None:
        if instance.mode != "try":
            raise CannotInject("containers have networks of their own; see tests/stack")
        port = _engine_port(instance)
        rules = [["-p", "tcp", f"--{end}port", port, "-j", action] for end in ("d", "s")]
        if action == "REJECT":
            # The resets that the filter itself sends have to come through.
            rules = [
                [*rule, "--reject-with", "tcp-reset", "!", "--tcp-flags", "RST", "RST"]
                for rule in rules
            ]
        try:
            for rule in rules:
                _filter("-I", rule)
            time.sleep(HOLD_SECONDS)
        finally:
            for rule in rules:
                with contextlib.suppress(CannotInject):
                    _filter("-D", rule)

    return inject


def _filter(change: str, rule: list[str]) -> None:
    command = ["iptables", "-w", "5", change, "INPUT", *rule]
    try:  # as in Instance, Ctrl-C is not for it
        subprocess.run(command, check=True, timeout=10, start_new_session=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotInject("the packet filter (iptables) cannot be used here") from error


def _engine_port(instance: Instance) -> str:
    environ = f"/proc/{instance.pid(ENGINES[0])}/environ"
    with open(environ, "rb") as file:
        for variable in file.read().split(b"\0"):
            if variable.startswith(b"ENGINE_PORT="):
                return variable.partition(b"=")[2].decode()
    raise RuntimeError("the engine's port is not known")


def _roll_engines(instance: Instance) -> None:
    instance.script("rollout.sh")


def _roll_gateways(instance: Instance) -> None:
    instance.script("rollout.sh", "--gateway")


SERVER, CORE, WORKER = processes.API_SERVER, processes.ENGINE_CORE, processes.WORKER
KILL, STOP = signal.SIGKILL, signal.SIGSTOP
HELD = f"for {HOLD_SECONDS:g} s"

ONE = ENGINES[:1]

FAULTS = (
    Fault("kill-server", "kill -9 of an engine's API server", _signal_engine(SERVER, KILL), ONE),
    Fault("kill-core", "kill -9 of its engine core", _signal_engine(CORE, KILL), ONE),
    Fault("kill-worker", "kill -9 of its worker", _signal_engine(WORKER, KILL), ONE),
    Fault("kill-engine", "kill -9 of all its processes at once", _kill_engine, ONE),
    Fault("term-engine", "SIGTERM to an engine under load", _terminate_engine, ONE),
    Fault("stop-core", "SIGSTOP of its engine core: it hangs", _signal_engine(CORE, STOP), ONE),
    Fault("stop-worker", "SIGSTOP of its worker: it hangs", _signal_engine(WORKER, STOP), ONE),
    Fault("stop-server", "SIGSTOP of its API server", _signal_engine(SERVER, STOP), ONE),
    Fault("pause-engine", f"an engine is frozen whole {HELD}", _pause_engine),
    Fault("drop-engine", f"packets to an engine are dropped {HELD}", _cut("DROP")),
    Fault("reset-engine", f"connections to an engine are reset {HELD}", _cut("REJECT")),
    Fault("both-engines", "kill -9 of both engines at once", _both_engines, ENGINES, outage=True),
    Fault("drain-engine", "an engine is drained and put back", _drain),
    Fault("stop-gateway", "a gateway is stopped in good order", _stop_gateway, GATEWAYS[:1]),
    Fault(
        "kill-gateway",
        "kill -9 of a gateway under /v1/chat",
        _kill_gateway,
        GATEWAYS[:1],
        load=TurnLoad,
    ),
    Fault("reload-door", "Nginx reloads its configuration", _reload_door),
    Fault("kill-redis", "kill -9 of Redis", _kill_redis, ("redis",)),
    Fault("pause-redis", f"Redis is frozen {HELD}", _pause_redis),
    Fault("slow-redis", f"Redis takes 0.4 s for everything, {HELD}", _slow_redis),
    Fault("full-redis", "Redis is full", _full_redis),
    Fault("read-only-redis", "Redis takes no writes", _read_only_redis),
    Fault("rollout-engines", "scripts/rollout.sh", _roll_engines, ENGINES, callers=4),
    Fault("rollout-gateways", "scripts/rollout.sh --gateway", _roll_gateways, GATEWAYS, callers=4),
)
