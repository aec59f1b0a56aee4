"""One running try instance, as the integration tests see it: callers, processes, health.

Owns how a test reaches each part and how it breaks one. Not here: starting the instance
(conftest.py), what callers ask (the tests, scripts/chaos/load.py).
"""

from __future__ import annotations

import configparser
import os
import signal
import ssl
import time
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import redis

from scripts.chaos import processes
from scripts.chaos.load import Service

ENGINES = ("vllm-a", "vllm-b")
GATEWAYS = ("gateway-a", "gateway-b")
PORTS = (
    "door", "redirect", *GATEWAYS, *ENGINES, "redis", "prometheus", "supervisor",
)  # fmt: skip
ANSWER_SECONDS = 180.0
HEAL_SECONDS = 300.0
LOOK_SECONDS = 0.25
SUPERVISOR_SECONDS = 60.0


def until(true: Callable[[], Any], seconds: float, what: str) -> Any:
    """Waits for it and returns it; AssertionError with `what` when it does not come."""
    end = time.monotonic() + seconds
    while True:
        found = true()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(LOOK_SECONDS)


class _Patient(xmlrpc.client.Transport):
    """Never waits for the supervisor without an end."""

    def make_connection(self, host: Any) -> Any:
        connection = super().make_connection(host)
        connection.timeout = SUPERVISOR_SECONDS
        return connection


class Tandem:
    """Built from the environment that `scripts/try.sh --print-env` prints."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.url = variables["TANDEM_URL"]
        self.key = variables["TANDEM_API_KEY"]
        self.ca = variables["TANDEM_CA"]
        self.model = variables["TANDEM_MODEL"]
        self.folder = Path(variables["TANDEM_DIR"])
        self.other_key = (self.folder / "secrets" / "other.key").read_text().strip()
        base = httpx.URL(self.url).port or 443
        self.ports = {name: base + number for number, name in enumerate(PORTS)}
        self.client = self.client_of(self.key)

    def close(self) -> None:
        self.client.close()

    # Callers ---------------------------------------------------------------------------------

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)

    def client_of(self, key: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.url,
            verify=self.trust,
            headers={"Authorization": f"Bearer {key}"},
            timeout=ANSWER_SECONDS,
        )

    @property
    def service(self) -> Service:
        """For the callers of scripts/chaos/load.py."""
        return Service(self.url, self.key, self.ca, self.model)

    def ask(self, text: str, **more: Any) -> httpx.Response:
        """One chat completion, greedy, whole."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 16,
            "temperature": 0,
            **more,
        }
        return self.client.post("/v1/chat/completions", json=body)

    # Parts -----------------------------------------------------------------------------------

    def address(self, part: str) -> str:
        return f"http://127.0.0.1:{self.ports[part]}"

    def supervisor(self, method: str, *arguments: Any) -> Any:
        """supervisord's own calls, as `supervisor("getProcessInfo", "nginx")`."""
        settings = configparser.RawConfigParser()
        settings.read(self.folder / "supervisord.conf")
        user, password = (settings["supervisorctl"][name] for name in ("username", "password"))
        place = f"http://{user}:{password}@127.0.0.1:{self.ports['supervisor']}/RPC2"
        with xmlrpc.client.ServerProxy(place, transport=_Patient()) as server:
            return getattr(server.supervisor, method)(*arguments)

    def pid(self, program: str) -> int:
        """The part's main process; 0 while it does not run."""
        return int(self.supervisor("getProcessInfo", program)["pid"])

    def stop(self, program: str) -> None:
        self.supervisor("stopProcess", program)

    def start(self, program: str) -> None:
        """A part that runs already is left alone."""
        try:
            self.supervisor("startProcess", program)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise

    def kill(self, program: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signals the part's main process and returns its id."""
        pid = self.pid(program)
        assert pid, f"{program} does not run"
        os.kill(pid, number)
        return pid

    def engine_pids(self, engine: str, wanted: str = "") -> list[int]:
        """The engine's processes, parents first; with `wanted`, those of that name."""
        found = processes.find(self.pid(engine), wanted)
        assert found, f"{engine} has no process named {wanted or 'anything'}"
        return found

    def redis(self) -> redis.Redis:
        return redis.Redis(
            port=self.ports["redis"],
            password=(self.folder / "secrets" / "redis_password").read_text().strip(),
            decode_responses=True,
            socket_timeout=30,
        )

    # Health ----------------------------------------------------------------------------------

    def overview(self, gateway: str) -> dict[str, Any]:
        """What one gateway sees; empty while it does not answer."""
        try:
            answer = httpx.get(f"{self.address(gateway)}/internal/engines", timeout=10)
            answer.raise_for_status()
        except httpx.HTTPError:
            return {}
        seen: dict[str, Any] = answer.json()
        return seen

    def busiest_engine(self) -> str:
        """The engine that carries the most answers now, both gateways' together."""
        load = dict.fromkeys(ENGINES, 0)
        for gateway in GATEWAYS:
            for one in self.overview(gateway).get("engines", ()):
                load[one["name"]] += one["in_flight"]
        return max(load, key=lambda name: load[name])

    def engine_states(self, gateway: str = "gateway-a") -> dict[str, str]:
        return {one["name"]: one["state"] for one in self.overview(gateway).get("engines", ())}

    def engine_running(self, engine: str) -> float:
        """Requests that the engine itself says it runs or holds in its queue."""
        text = httpx.get(f"{self.address(engine)}/metrics", timeout=30).text
        wanted = ("vllm:num_requests_running", "vllm:num_requests_waiting{")
        return sum(
            float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(wanted)
        )

    def ills(self) -> list[str]:
        """What is not well; empty when all is."""
        found = []
        for gateway in GATEWAYS:
            states = self.engine_states(gateway)
            found += [] if len(states) == len(ENGINES) else [f"{gateway} does not answer"]
            found += [f"{gateway}: {n} {s}" for n, s in states.items() if s != "healthy"]
        found += [f"{engine} has not settled" for engine in ENGINES if self._failed_starts(engine)]
        if not found and self._session_store_away():
            found.append("sessions cannot be read")
        return found

    def _failed_starts(self, engine: str) -> int:
        """An engine killed before it has settled counts as a failed start, and five park it."""
        try:
            return int((self.folder / "engines" / f"{engine}.starts").read_text() or 0)
        except (OSError, ValueError):
            return 0

    def _session_store_away(self) -> bool:
        try:
            return self.client.get("/v1/sessions").status_code != 200
        except httpx.HTTPError:
            return True

    def wait_healthy(self, seconds: float = HEAL_SECONDS) -> None:
        """Until every part is up and every engine has settled."""
        end = time.monotonic() + seconds
        while ills := self.ills():
            assert time.monotonic() < end, f"not healed within {seconds:g} s: {'; '.join(ills)}"
            time.sleep(LOOK_SECONDS)
