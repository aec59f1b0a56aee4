"""Who is measured: our gateway with every feature on, its peers, Nginx alone, and no proxy at all.

Each contender is a process tree pinned to the proxy's core, with the door in front of it where a
scenario is about what people deploy.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench.peers import peer_python

ROOT = Path(__file__).parents[2]
VLLM_ROUTER = ["-m", "vllm_router.launch_router"]
SGLANG_ROUTER = ["-m", "sglang_router.launch_router"]
PROXY_CORE, ENGINE_CORE = "0", "1"
KEY = "sk-bench-0123456789abcdef0123456789abcdef"  # opens this run and nothing else


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """A contender that serves: where, and which processes are its own."""

    name: str
    ports: list[int]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    tls: bool = False
    #: beside the contender and not measured: its Redis
    beside: list[subprocess.Popen[bytes]] = field(default_factory=list)


def launch(
    command: list[str], core: str, log: Path, cwd: Path = ROOT, **env: str
) -> subprocess.Popen[bytes]:
    """Start a pinned process in a group of its own."""
    with log.open("ab") as out:
        return subprocess.Popen(
            ["taskset", "-c", core, *command],
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_port(port: int, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode} before it served")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} did not listen on its port within {seconds:.0f} s")


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)


# Each contender -------------------------------------------------------------------------------


def _direct(folder: Path, engines: list[int]) -> Running:
    return Running("direct", engines)


def _nginx(folder: Path, engines: list[int], *, tls: bool = False) -> Running:
    port = free_port()
    ssl = f"ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;" if tls else ""
    servers = "".join(f"server 127.0.0.1:{one};" for one in engines)
    (folder / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_max_body_size 8m; client_body_buffer_size 1m;
  upstream engines {{ {servers} keepalive 1024; }}
  server {{ listen 127.0.0.1:{port}{" ssl" if tls else ""} backlog=4096; {ssl}
    keepalive_requests 100000;
    location / {{ proxy_pass http://engines; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_buffering off; }} }} }}"""
    )
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = launch(command, PROXY_CORE, folder / "nginx.log")
    wait_port(port, process)
    return Running("nginx", [port], [process])


def start_redis(folder: Path) -> tuple[int, subprocess.Popen[bytes]]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
    process = launch(command, ENGINE_CORE, folder / "redis.log")
    wait_port(port, process)
    return port, process


def gateway(
    folder: Path, engines: list[int], redis: int, root: Path = ROOT, model: str = "standin"
) -> Running:
    """One gateway as the appliance runs it: keys, limits, metrics, logs, failover armed."""
    port = free_port()
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    (secrets / "api_keys").write_text(f"bench {digest}\n")
    names = ",".join(f"vllm-{n}=http://127.0.0.1:{one}" for n, one in enumerate(engines))
    process = launch(
        [sys.executable, "-m", "gateway"],
        PROXY_CORE,
        folder / "gateway.log",
        root,
        GATEWAY_NAME=f"gateway-{port}",
        GATEWAY_HOST="127.0.0.1",
        GATEWAY_PORT=str(port),
        ENGINES=names,
        MODEL_NAME=model,
        REDIS_URL=f"redis://127.0.0.1:{redis}/0",
        SECRETS_DIR=str(secrets),
        MAX_INFLIGHT_PER_ENGINE="1024",
        QUEUE_LENGTH="2048",
        RATE_LIMIT_RPM="1000000",
    )
    wait_port(port, process)
    return Running("tandem", [port], [process])


def _tandem(folder: Path, engines: list[int], root: Path = ROOT) -> Running:
    redis_port, redis = start_redis(folder)
    running = gateway(folder, engines, redis_port, root)
    running.beside.append(redis)
    return running


def _two_gateways(folder: Path, engines: list[int]) -> Running:
    """As the appliance has them; on one core here."""
    redis_port, redis = start_redis(folder)
    both = Running("two gateways", [], beside=[redis])
    for name in ("a", "b"):
        (folder / name).mkdir()
        one = gateway(folder / name, engines, redis_port)
        both.ports += one.ports
        both.processes += one.processes
    return both


def _behind_door(name: str) -> Callable[[Path, list[int]], Running]:
    """TLS and HTTP as a browser sees it: Nginx in front, on the same core."""

    def start(folder: Path, engines: list[int]) -> Running:
        behind = CONTENDERS[name](folder, engines)
        certificate(folder)
        door = _nginx(folder, behind.ports, tls=True)
        return Running(
            f"nginx + {name}", door.ports, door.processes + behind.processes, True, behind.beside
        )

    return start


def certificate(folder: Path) -> None:
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"],
            *["-subj", "/CN=bench", "-keyout", str(folder / "key.pem")],
            *["-out", str(folder / "cert.pem")],
        ],
        check=True,
        capture_output=True,
    )


def rust_router(
    name: str, module: list[str], policy: str = "round_robin"
) -> Callable[[Path, list[int]], Running]:
    def start(folder: Path, engines: list[int]) -> Running:
        port, metrics = free_port(), free_port()
        urls = [f"http://127.0.0.1:{one}" for one in engines]
        command = [str(peer_python(name)), *module, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--worker-urls", *urls, "--policy", policy]
        command += ["--prometheus-port", str(metrics), "--log-level", "error"]
        process = launch(command, PROXY_CORE, folder / f"{name}.log")
        wait_port(port, process)
        return Running(name, [port], [process])

    return start


def _litellm(folder: Path, engines: list[int]) -> Running:
    port = free_port()
    models = "".join(
        f"  - model_name: standin\n    litellm_params: {{model: openai/standin, "
        f"api_base: 'http://127.0.0.1:{one}/v1', api_key: none}}\n"
        for one in engines
    )
    (folder / "litellm.yaml").write_text(f"model_list:\n{models}")
    command = [str(peer_python("litellm").parent / "litellm"), "--host", "127.0.0.1"]
    command += ["--config", str(folder / "litellm.yaml"), "--port", str(port)]
    process = launch(
        command,
        PROXY_CORE,
        folder / "litellm.log",
        LITELLM_LOG="ERROR",
        LITELLM_MASTER_KEY=KEY,
    )
    wait_port(port, process, 180)
    return Running("litellm", [port], [process])


CONTENDERS: dict[str, Callable[[Path, list[int]], Running]] = {
    "direct": _direct,
    "nginx": _nginx,
    "tandem": _tandem,
    "vllm-router": rust_router("vllm-router", VLLM_ROUTER),
    "sglang-router": rust_router("sglang-router", SGLANG_ROUTER),
    "litellm": _litellm,
    "two gateways": _two_gateways,
    "nginx + tandem": _behind_door("tandem"),
    "nginx + vllm-router": _behind_door("vllm-router"),
    "nginx + sglang-router": _behind_door("sglang-router"),
}
# The gateway of another checkout, to compare two states of the code in one run.
if base := os.environ.get("BENCH_BASE"):
    CONTENDERS["tandem-base"] = partial(_tandem, root=Path(base))


@contextlib.contextmanager
def running(name: str, folder: Path, engines: list[int]) -> Iterator[Running]:
    """The contender, serving; stopped with all its processes afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    contender = CONTENDERS[name](folder, engines)
    try:
        yield contender
    finally:
        stop([*contender.processes, *contender.beside])
