"""Watches one engine from beside it, and decides when it is beyond recovery.

Owns: what is observed (/health, /metrics, a one-token probe, nvidia-smi) and the verdict.
Not here: starting, stopping, counting starts (serve.py). Only the standard library.

vLLM's /health answers 200 while the engine core hangs, so the verdict rests on progress: work is
there and no counter of the engine has moved for a while. Prefill of a long prompt ends no
iteration, but fills the KV cache block by block: that is progress too.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

WORK = ("vllm:num_requests_running", "vllm:num_requests_waiting")
PROGRESS = (
    *WORK,
    "vllm:iteration_tokens_total_count",
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
    "vllm:kv_cache_usage_perc",
    "vllm:num_preemptions_total",
)
SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{[^}]*\})? (\S+)", re.MULTILINE)
MOST_BYTES = 4 << 20


@dataclass(frozen=True)
class Limits:
    """How patient it is, in seconds unless a name says otherwise."""

    frozen: float = 45.0
    interval: float = 3.0
    timeout: float = 5.0
    failures: int = 3
    idle_before_probe: float = 10.0
    gpu_interval: float = 15.0


@dataclass(frozen=True)
class Look:
    """What one observation saw; `numbers` is None where /metrics did not answer."""

    healthy: bool
    numbers: dict[str, float] | None
    problem: str = ""


def numbers_of(text: str) -> dict[str, float]:
    """The sums of the metrics that tell work and progress."""
    sums: dict[str, float] = {}
    for name, value in SAMPLE.findall(text):
        if name in PROGRESS:
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


class EngineHttp:
    """Short questions to the engine, each with a deadline."""

    def __init__(self, port: int, timeout: float, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._timeout = timeout

    def ask(
        self, method: str, path: str, body: str | None = None, timeout: float | None = None
    ) -> tuple[int, bytes]:
        """One request on a connection of its own; OSError or HTTPException when it fails."""
        link = http.client.HTTPConnection(*self._address, timeout=timeout or self._timeout)
        try:
            headers = {"content-type": "application/json"} if body else {}
            link.request(method, path, body, headers)
            answer = link.getresponse()
            return answer.status, answer.read(MOST_BYTES)
        finally:
            link.close()

    def look(self) -> Look:
        """Health and numbers in one observation."""
        try:
            status, _ = self.ask("GET", "/health")
            if status != 200:
                return Look(False, None, f"/health answered {status}")
            status, text = self.ask("GET", "/metrics")
        except (OSError, http.client.HTTPException) as error:
            return Look(False, None, f"no answer ({type(error).__name__})")
        if status != 200:
            return Look(False, None, f"/metrics answered {status}")
        try:
            return Look(True, numbers_of(text.decode("utf-8", "replace")))
        except ValueError:
            return Look(False, None, "/metrics is not readable")

    def probe(self, timeout: float) -> bool:
        """Asks for one token; any answer shows that the engine moves, only silence does not."""
        try:
            _, raw = self.ask("GET", "/v1/models")
            model = json.loads(raw)["data"][0]["id"]
            body = json.dumps({"model": model, "prompt": "1", "max_tokens": 1})
            self.ask("POST", "/v1/completions", body, timeout)
        except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError):
            return False
        return True


class Judge:
    """Turns observations into a verdict. Pure: time and observations come as arguments."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._failed = 0
        self._last_numbers: dict[str, float] = {}
        self._last_look: float | None = None
        self._moved_at = 0.0
        self._pending_since: float | None = None
        self.healthy_since: float | None = None

    def see(self, now: float, look: Look, probe_pending: bool = False) -> str | None:
        """The reason to end the engine, or None. Before it was healthy once, always None."""
        self._forgive_a_gap(now)
        if look.healthy:
            self._failed = 0
            if self.healthy_since is None:
                self.healthy_since = self._moved_at = now
        if self.healthy_since is None:
            return None
        if not look.healthy:
            self._failed += 1
            if self._failed >= self._limits.failures:
                return f"{self._failed} failed observations, the last: {look.problem}"
        return self._frozen(now, look.numbers, probe_pending)

    def idle_for(self, now: float) -> float:
        """Seconds without work and without movement; 0 while work is there."""
        if self.healthy_since is None or self._pending_since is not None:
            return 0.0
        return now - self._moved_at

    def _forgive_a_gap(self, now: float) -> None:
        """The watchdog itself was stopped (a paused container): nothing was seen, nothing held."""
        most = 3 * (self._limits.interval + 2 * self._limits.timeout)
        if self._last_look is not None and now - self._last_look > most:
            self._failed = 0
            self._moved_at = now
            self._pending_since = None
        self._last_look = now

    def _frozen(
        self, now: float, numbers: dict[str, float] | None, probe_pending: bool
    ) -> str | None:
        if numbers is not None:
            if numbers != self._last_numbers:
                self._last_numbers, self._moved_at = numbers, now
            work = sum(numbers.get(name, 0.0) for name in WORK)
            if not work and not probe_pending:
                self._pending_since = None
            elif self._pending_since is None:
                self._pending_since = now
        if self._pending_since is None:
            return None
        still = now - max(self._moved_at, self._pending_since)
        if still < self._limits.frozen:
            return None
        return f"work is waiting and the engine has made no step for {still:.0f} s"


def count_gpus(timeout: float = 20.0) -> int | None:
    """How many cards nvidia-smi lists; None without nvidia-smi, 0 when it fails or hangs."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        listing = subprocess.run(
            [tool, "-L"], capture_output=True, text=True, timeout=timeout, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listing.splitlines())


class Watchdog:
    """The loop: looks, judges, and calls `end(reason)` once when the engine is beyond recovery."""

    def __init__(self, engine: EngineHttp, limits: Limits, end: Callable[[str], None]) -> None:
        self._engine = engine
        self._limits = limits
        self._end = end
        self._judge = Judge(limits)
        self._off = threading.Event()
        self._probe: threading.Thread | None = None
        self._gpus = count_gpus()
        self._gpus_missed = 0
        self._gpus_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    @property
    def healthy_since(self) -> float | None:
        """Monotonic time of the first good observation."""
        return self._judge.healthy_since

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def stand_down(self) -> None:
        """No verdicts any more: the engine is being stopped on purpose."""
        self._off.set()

    def _run(self) -> None:
        while not self._off.wait(self._limits.interval):
            look = self._engine.look()
            now = time.monotonic()
            reason = self._judge.see(now, look, self._probe_pending()) or self._lost_gpu(now)
            if self._off.is_set():
                return
            if reason:
                self._end(reason)
                return
            if self._judge.idle_for(now) >= self._limits.idle_before_probe:
                self._start_probe()

    def _probe_pending(self) -> bool:
        return self._probe is not None and self._probe.is_alive()

    def _start_probe(self) -> None:
        """An idle engine may hang unseen: one token shows that it does not."""
        if self._probe_pending():
            return
        patience = self._limits.frozen * 2
        self._probe = threading.Thread(
            target=self._engine.probe, args=(patience,), name="probe", daemon=True
        )
        self._probe.start()

    def _lost_gpu(self, now: float) -> str | None:
        """Two misses in a row, so that one slow nvidia-smi ends nothing."""
        if not self._gpus or now - self._gpus_at < self._limits.gpu_interval:
            return None
        seen = count_gpus()
        self._gpus_at = time.monotonic()
        self._gpus_missed = self._gpus_missed + 1 if (seen or 0) < self._gpus else 0
        if self._gpus_missed < 2:
            return None
        return f"GPU lost: nvidia-smi lists {seen or 0} of {self._gpus}"
