"""The appliance under test: compose.yaml, the CPU overlay and the tests' own, brought up for real.

Owns: a copy of the product in a folder of the tests, with the files that set-up would make,
`docker compose` and the operator's scripts there, and what a test asks of the running stack.
Not here: the engine below (docker_engine.py), images (images.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from tests.stack import images
from tests.stack.docker_engine import DockerEngine, EngineUnavailable, poll

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "tandem-stack"
# What an operator has on the workstation; web's build is replaced by overlay.yaml.
PRODUCT = (".dockerignore", "compose.yaml", "gateway", "monitoring", "nginx", "scripts", "vllm")
FILES = ("compose.yaml", "vllm/compose.cpu.yaml", "tests/stack/overlay.yaml")
GATEWAYS = ("gateway-a", "gateway-b")
ENGINES = ("vllm-a", "vllm-b")
SERVICES = ("nginx", *GATEWAYS, "redis", *ENGINES, "prometheus", "alertmanager", "grafana")
MODEL = "tandem-tiny"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def find_vllm() -> Path:
    """The virtual environment that has vLLM: the one that try mode made, or TANDEM_VLLM_VENV."""
    cache = Path(os.environ.get("TANDEM_CACHE") or Path.home() / ".cache" / "tandem")
    named = os.environ.get("TANDEM_VLLM_VENV")
    candidates = [Path(named)] if named else newest_first(cache.glob("vllm-*"))
    for venv in candidates:
        if list(venv.glob("lib/python3*/site-packages/vllm/__init__.py")):
            return venv
    raise EngineUnavailable("no environment with vLLM: run ./scripts/try.sh once")


def newest_first(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def home_of(venv: Path) -> Path:
    asked = [str(venv / "bin" / "python"), "-c", "import sys; print(sys.base_prefix)"]
    return Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())


class Appliance:
    def __init__(self, engine: DockerEngine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.https_port, self.http_port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.https_port}"
        self.key = f"sk-{secrets.token_hex(24)}"
        self.secrets = {
            "redis_password": secrets.token_hex(16),
            "grafana_admin_password": secrets.token_hex(16),
            "smtp_password": secrets.token_hex(16),
        }
        self.environment = {**engine.environment, **self._values()}

    # ---- up and down -----------------------------------------------------------------------------

    def up(self) -> None:
        self._make_files()
        wanted = self.compose("config", "--images").split()
        images.ensure(self.engine, [*wanted, *_bases_of_builds()])
        self.compose("build", timeout=600)
        self.compose("up", "--detach", "--wait", "--wait-timeout", "240", timeout=300)
        self.tls = ssl.create_default_context(cafile=str(self.folder / "certificates/tls.crt"))
        self.client = httpx.Client(
            base_url=self.url, verify=self.tls, timeout=60, headers=self.authorization
        )

    def down(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        # Nobody waits for answers any more: no grace.
        self.compose("down", "--volumes", "--timeout", "3", timeout=120)

    def compose(self, *command: str, timeout: float = 120) -> str:
        done = subprocess.run(
            ["docker", "compose", *command],
            env=self.environment, cwd=self.folder, timeout=timeout, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            told = f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
            raise RuntimeError(f"compose {' '.join(command)}: {told}\n{self._last_words()}")
        return done.stdout

    def script(
        self, name: str, *arguments: str, timeout: float = 280, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the operator's scripts to its end, whatever that is."""
        return subprocess.run(
            [str(self.folder / "scripts" / name), *arguments],
            env={**self.environment, "TANDEM_MODE": "compose", **variables},
            stdin=subprocess.DEVNULL, timeout=timeout, capture_output=True, text=True,
        )  # fmt: skip

    # ---- what a test asks ------------------------------------------------------------------------

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def inspect(self, service: str) -> dict[str, Any]:
        found = json.loads(self.engine.run("inspect", self.container(service)))
        assert isinstance(found[0], dict)
        return found[0]

    def container(self, service: str) -> str:
        return f"{PROJECT}-{service}-1"

    def execute(self, service: str, *command: str, timeout: float = 60) -> tuple[int, str]:
        """Run a command inside a container: its status and what it printed."""
        done = subprocess.run(
            ["docker", "exec", self.container(service), *command],
            env=self.environment, timeout=timeout, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def main_process(self, service: str) -> int:
        """The pid, on the host, of what tini runs in the container."""
        tini = self.inspect(service)["State"]["Pid"]
        children = Path(f"/proc/{tini}/task/{tini}/children").read_text().split()
        return int(children[0]) if children else int(tini)

    def kill(self, service: str) -> None:
        """kill -9 from the host: a crash, as `docker kill` is none (it switches restarts off)."""
        os.kill(self.main_process(service), signal.SIGKILL)

    def healthy(self, service: str) -> bool:
        state = self.inspect(service)["State"]
        return bool(state["Running"] and state.get("Health", {}).get("Status") == "healthy")

    def engines(self, gateway: str) -> dict[str, str]:
        """Name and state of each engine, as this gateway sees it."""
        look = (
            "import json, urllib.request as r;"
            "print(r.urlopen('http://127.0.0.1:8080/internal/engines', timeout=5).read().decode())"
        )
        status, text = self.execute(gateway, "python", "-c", look)
        if status:
            return {}
        return {one["name"]: one["state"] for one in json.loads(text)["engines"]}

    def whole(self) -> bool:
        """Every container is healthy and both gateways see both engines."""
        return all(self.healthy(service) for service in SERVICES) and all(
            list(self.engines(gateway).values()) == ["healthy", "healthy"] for gateway in GATEWAYS
        )

    def wait_whole(self, seconds: float = 180) -> None:
        try:
            poll(self.whole, seconds, "every part is healthy")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._last_words()}") from error

    def chat(self, prompt: str, **fields: Any) -> httpx.Response:
        return self.client.post("/v1/chat", json={"prompt": prompt, **fields})

    # ---- the rest --------------------------------------------------------------------------------

    def _values(self) -> dict[str, str]:
        venv = find_vllm()
        bundle = images.ca_bundle()
        return {
            "STACK_DIR": str(self.folder),
            "STACK_VENV": str(venv),
            "STACK_PYTHON_HOME": str(home_of(venv)),
            "STACK_CA_BUNDLE": str(bundle) if bundle else os.devnull,
            "BUILDKIT_PROGRESS": "plain",
        }

    def _settings(self) -> dict[str, str]:
        cores = str(os.cpu_count() or 1)
        return {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_FILE": ":".join(FILES),
            "TANDEM_SETUP": "tests",
            "HTTPS_PORT": str(self.https_port),
            "HTTP_PORT": str(self.http_port),
            "MODEL_NAME": MODEL,
            "MODEL_DIR": str(self.folder / "model"),
            "VLLM_PROFILE_CPU": "tiny.yaml",
            "VLLM_CPUS": cores,
            "VLLM_MEMORY": "6g",
            "LOG_LEVEL": "INFO",
        }

    def _copy_product(self) -> None:
        for name in (*PRODUCT, FILES[-1]):
            source, target = ROOT / name, self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)

    def _make_files(self) -> None:
        self._copy_product()
        for name in ("secrets", "certificates", "page/web/dist"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        settings = "".join(f"{name}={value}\n" for name, value in self._settings().items())
        (self.folder / ".env").write_text(settings)
        for name, value in self.secrets.items():
            (self.folder / "secrets" / name).write_text(f"{value}\n")
        digest = hashlib.sha256(self.key.encode()).hexdigest()
        (self.folder / "secrets" / "api_keys").write_text(f"tests {digest}\n")
        self._make_certificate(self.folder / "certificates")
        self._make_page(self.folder / "page/web/dist")
        python = str(Path(self.environment["STACK_VENV"]) / "bin/python")
        maker = [python, str(ROOT / "vllm/tiny_model.py"), str(self.folder / "model")]
        subprocess.run(maker, check=True, capture_output=True, timeout=300)

    def _make_certificate(self, folder: Path) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", folder / "tls.key", "-out", folder / "tls.crt", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True,
        )  # fmt: skip
        (folder / "tls.key").chmod(0o444)

    def _make_page(self, folder: Path) -> None:
        built = ROOT / "web" / "dist"
        if (built / "index.html").exists():
            shutil.copytree(built, folder, dirs_exist_ok=True)
        else:
            (folder / "index.html").write_text("<!doctype html><title>Tandem</title>")

    def _last_words(self) -> str:
        """The ends of the logs, for a failed test; they hold no prompt and no secret."""
        words = []
        for service in SERVICES:
            done = subprocess.run(
                ["docker", "logs", "--tail", "12", self.container(service)],
                env=self.environment, capture_output=True, text=True, timeout=30,
            )  # fmt: skip
            words.append(f"--- {service}\n{(done.stdout + done.stderr)[-1500:]}")
        return "\n".join(words)


def _bases_of_builds() -> list[str]:
    """The images that our Dockerfiles start from."""
    found = []
    for dockerfile in ("gateway/Dockerfile", "nginx/Dockerfile"):
        for line in (ROOT / dockerfile).read_text().splitlines():
            if line.startswith("ARG ") and "_IMAGE=" in line and "NODE" not in line:
                found.append(line.partition("=")[2])
    return found
