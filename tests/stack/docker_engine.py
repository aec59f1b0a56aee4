"""A Docker Engine for the stack tests: the machine's own, or one of our own in a folder.

Owns: fetching Debian testing's packages into the folder, dockerd, the client's environment, and
leaving nothing behind. The system's package sources stay as they are.
Not here: images (images.py), the appliance (appliance.py).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

from tests.stack.debian import mirror

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = ("docker.io", "docker-cli", "containerd", "docker-buildx", "docker-compose")
# From the system's own release: testing's runc needs a newer C library.
SYSTEM_PACKAGES = {
    "runc": "runc", "iptables": "iptables", "debootstrap": "debootstrap", "tini-static": "tini",
}  # fmt: skip
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class EngineUnavailable(Exception):
    """This machine cannot run a Docker Engine of ours; the message says why."""


def cache_folder() -> Path:
    cache = os.environ.get("TANDEM_CACHE") or str(Path.home() / ".cache" / "tandem")
    return Path(cache) / "docker"


def answers(environment: dict[str, str]) -> bool:
    if shutil.which("docker", path=environment["PATH"]) is None:
        return False
    asked = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        env=environment, capture_output=True, timeout=30,
    )  # fmt: skip
    return asked.returncode == 0


def poll(condition: object, seconds: float, what: str) -> None:
    """Wait until condition() is true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.2)


class DockerEngine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.socket = folder / "run" / "docker.sock"
        self.environment = {**os.environ, "PATH": f"{os.environ['PATH']}:{SYSTEM_PATH}"}
        self.ours = False
        self.process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    def start(self) -> None:
        if answers(self.environment):
            return
        self._check_machine()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._fetch()
        self.ours = True
        self.environment |= {
            "PATH": f"{self.programs}/usr/bin:{self.programs}/usr/sbin:{self.environment['PATH']}",
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.folder / "client"),
        }
        self._clear()
        self._launch()

    def run(self, *command: str, timeout: float = 120) -> str:
        """`docker …`; its output. What it says goes into the error when it fails."""
        done = subprocess.run(
            ["docker", *command], env=self.environment, timeout=timeout, capture_output=True,
            text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(command)}: {done.stderr[-4000:]}")
        return done.stdout

    def stop(self) -> None:
        """End our engine; containers, mounts and the lock go with it. Images stay cached."""
        if not self.ours:
            return
        if self.process and self.process.poll() is None:
            for container in self.run("ps", "--all", "--quiet").split():
                self.run("rm", "--force", "--volumes", container)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._clear()
        if self._lock:
            self._lock.close()

    def _check_machine(self) -> None:
        if os.geteuid() != 0:
            raise EngineUnavailable("no Docker Engine answers, and only root can start one")
        if shutil.which("dpkg", path=SYSTEM_PATH) is None:
            raise EngineUnavailable("no Docker Engine answers, and this is not a Debian")

    def _fetch(self) -> None:
        missing = [
            package
            for program, package in SYSTEM_PACKAGES.items()
            if shutil.which(program, path=SYSTEM_PATH) is None
        ]
        if missing:
            self._call("apt-get", "update", "-qq")
            self._call("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
        if (self.programs / "complete").exists():
            return
        shutil.rmtree(self.programs, ignore_errors=True)
        self.programs.mkdir()
        packages = self._download(self.folder / "apt")
        for package in packages:
            self._call("dpkg", "-x", str(package), str(self.programs))
        self._link_plugins()
        (self.programs / "complete").touch()

    def _download(self, apt: Path) -> list[Path]:
        """Debian testing's packages, with lists in a folder of their own."""
        for folder in ("lists/partial", "archives/partial", "packages"):
            (apt / folder).mkdir(parents=True, exist_ok=True)
        source = apt / "sources.list"
        source.write_text(f"deb [signed-by={KEYRING}] {mirror()} testing main\n")
        options = [
            f"Dir::Etc::SourceList={source}", "Dir::Etc::SourceParts=/dev/null",
            f"Dir::State::Lists={apt}/lists", f"Dir::Cache={apt}", "APT::Sandbox::User=root",
        ]  # fmt: skip
        apt_get = ["apt-get", *(f"-o{option}" for option in options)]
        self._call(*apt_get, "update", "-qq")
        self._call(*apt_get, "download", "-qq", *PACKAGES, cwd=apt / "packages")
        return sorted((apt / "packages").glob("*.deb"))

    def _link_plugins(self) -> None:
        plugins = self.folder / "client" / "cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        for name in ("docker-compose", "docker-buildx"):
            link = plugins / name
            link.unlink(missing_ok=True)
            link.symlink_to(self.programs / "usr/libexec/docker/cli-plugins" / name)

    def _launch(self) -> None:
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        tini = shutil.which("tini-static", path=SYSTEM_PATH)
        command = [
            "dockerd", "--data-root", f"{self.folder}/data",
            "--exec-root", f"{self.folder}/run/exec",
            "--pidfile", f"{self.folder}/run/dockerd.pid", "--host", f"unix://{self.socket}",
            "--init-path", str(tini), "--default-address-pool", "base=10.213.0.0/16,size=24",
        ]  # fmt: skip
        with (self.folder / "dockerd.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            poll(self._is_up, 90, "dockerd answers")
        except (TimeoutError, RuntimeError) as error:
            tail = (self.folder / "dockerd.log").read_text()[-1500:]
            self.stop()
            raise EngineUnavailable(f"dockerd does not run here: {tail}") from error

    def _is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError("dockerd ended")
        return answers(self.environment)

    def _clear(self) -> None:
        """End what an interrupted run left (by the pids in its own files), and its mounts."""
        for pidfile in (self.folder / "run").rglob("*.pid"):
            self._end(pidfile)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", mount], capture_output=True)
        shutil.rmtree(self.folder / "run", ignore_errors=True)

    def _end(self, pidfile: Path) -> None:
        text = pidfile.read_text().strip()
        if not text.isdigit():
            return
        command = Path(f"/proc/{text}/cmdline")
        if command.exists() and str(self.folder).encode() in command.read_bytes():
            os.kill(int(text), signal.SIGTERM)
            poll(lambda: not command.exists() or not command.read_bytes(), 60, "the old one ends")

    def _call(self, *command: str, cwd: Path | None = None) -> None:
        done = subprocess.run(
            command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            raise EngineUnavailable(f"{command[0]} failed: {done.stderr[-1500:]}")
