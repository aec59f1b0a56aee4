"""Who is measured: our gateway with every feature on, its peers, Nginx alone, and no proxy at all.

Each contender is a process tree pinned to the proxy's core. Peers live in virtual environments of
their own under the cache, installed on first use at the versions named here.
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
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("TANDEM_CACHE", Path.home() / ".cache" / "tandem")) / "bench"
PEERS = {
    "vllm-router": ["vllm-router==0.1.17"],
    "sglang-router": ["sglang-router==0.3.2"],
    "litellm": ["litellm[proxy]==1.108.7"],
}
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
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    tls: bool = False


def launch(command: list[str], core: str, log: Path, **env: str) -> subprocess.Popen[bytes]:
    """Start a pinned process in a group of its own."""
    with log.open("ab") as out:
        return subprocess.Popen(
            ["taskset", "-c", core, *command],
            cwd=ROOT,
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
            raise RuntimeError(f"{process.args} ended with {process.returncode} before it served")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args} did not listen on its port within {seconds:.0f} s")


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)


def peer_python(name: str) -> Path:
    """The python of the peer's own environment, made on first use."""
    wanted = hashlib.sha256(repr(PEERS[name]).encode()).hexdigest()[:12]
    home = CACHE / f"{name}-{wanted}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PEERS[name]], check=True)
        (home / "complete").touch()
    return python


# Each contender -------------------------------------------------------------------------------


def _direct(folder: Path, engines: list[int]) -> Running:
    return Running("direct", engines[0])


def _nginx(folder: Path, engines: list[int]) -> Running:
    port = free_port()
    servers = "".join(f"server 127.0.0.1:{one};" for one in engines)
    (folder / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_max_body_size 8m; client_body_buffer_size 1m;
  upstream engines {{ {servers} keepalive 1024; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://engines; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_buffering off; }} }} }}"""
    )
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = launch(command, PROXY_CORE, folder / "nginx.log")
    wait_port(port, process)
    return Running("nginx", port, [process])


def _redis(folder: Path) -> tuple[int, subprocess.Popen[bytes]]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)]
    process = launch(command, ENGINE_CORE, folder / "redis.log")
    wait_port(port, process)
    return port, process


def gateway(folder: Path, engines: list[int], redis: int, root: Path = ROOT) -> Running:
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
        PYTHONPATH=str(root),
        GATEWAY_NAME=f"gateway-{port}",
        GATEWAY_HOST="127.0.0.1",
        GATEWAY_PORT=str(port),
        ENGINES=names,
        MODEL_NAME="standin",
        REDIS_URL=f"redis://127.0.0.1:{redis}/0",
        SECRETS_DIR=str(secrets),
        MAX_INFLIGHT_PER_ENGINE="1024",
        QUEUE_LENGTH="2048",
        RATE_LIMIT_RPM="1000000",
    )
    wait_port(port, process)
    return Running("tandem", port, [process])


def _tandem(folder: Path, engines: list[int]) -> Running:
    redis_port, redis = _redis(folder)
    running = gateway(folder, engines, redis_port)
    running.processes.append(redis)
    return running


def _rust_router(name: str, module: list[str]) -> Callable[[Path, list[int]], Running]:
    def start(folder: Path, engines: list[int]) -> Running:
        port, metrics = free_port(), free_port()
        urls = [f"http://127.0.0.1:{one}" for one in engines]
        command = [str(peer_python(name)), *module, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--worker-urls", *urls, "--policy", "round_robin"]
        command += ["--prometheus-port", str(metrics), "--log-level", "error"]
        process = launch(command, PROXY_CORE, folder / f"{name}.log")
        wait_port(port, process)
        return Running(name, port, [process])

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
    return Running("litellm", port, [process])


CONTENDERS: dict[str, Callable[[Path, list[int]], Running]] = {
    "direct": _direct,
    "nginx": _nginx,
    "tandem": _tandem,
    "vllm-router": _rust_router("vllm-router", ["-m", "vllm_router.launch_router"]),
    "sglang-router": _rust_router("sglang-router", ["-m", "sglang_router.launch_router"]),
    "litellm": _litellm,
}


@contextlib.contextmanager
def running(name: str, folder: Path, engines: list[int]) -> Iterator[Running]:
    """The contender, serving; stopped with all its processes afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    contender = CONTENDERS[name](folder, engines)
    try:
        yield contender
    finally:
        stop(contender.processes)
