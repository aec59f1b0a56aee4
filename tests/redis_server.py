"""A real redis-server of its own for a test session: started on a free port, ended afterwards.

`start_redis(folder)` gives a `RedisServer`; its owner calls `stop()`. Nothing here knows pytest.
"""

import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30.0
ATTEMPTS = 5


@dataclass
class RedisServer:
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def freeze(self) -> None:
        """Stops the process from answering, connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        self.process.kill()
        self.process.wait(timeout=START_SECONDS)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def start_redis(folder: Path, *options: str, port: int | None = None) -> RedisServer:
    """Another process may take the free port first, so a start that fails is tried again."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("redis-server is not installed; the tests of conversations need it")
    for _ in range(ATTEMPTS):
        server = _launch(program, folder, port or free_port(), options)
        if _answers(server):
            return server
        server.stop()
    raise RuntimeError(f"redis-server did not start {ATTEMPTS} times in a row")


def _launch(program: str, folder: Path, port: int, options: tuple[str, ...]) -> RedisServer:
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--appendonly", "no", "--dir", str(folder), "--daemonize", "no", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return RedisServer(port, process)


def _answers(server: RedisServer) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
                connection.sendall(b"INFO server\r\n")
                if str(server.process.pid).encode() in connection.recv(65536):
                    return True
        except OSError:
            time.sleep(0.05)
    return False
