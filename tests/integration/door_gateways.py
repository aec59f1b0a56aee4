"""Two tiny gateways for the tests of the door, and the real Nginx in front of them.

Owns: a scripted HTTP server for each gateway, the rendered configuration and the Nginx process.
Not here: what is expected of the door (test_door.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
PATIENCE = 30.0


@dataclass
class Asked:
    """One request as a gateway saw it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Script = Callable[["FakeGateway", Asked, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def say_who(gateway: FakeGateway, _: Asked, writer: asyncio.StreamWriter) -> None:
    body = json.dumps({"gateway": gateway.name}).encode()
    writer.write(answer(200, body, "Content-Type: application/json"))


@dataclass
class FakeGateway:
    name: str
    port: int
    script: Script = say_who
    asked: list[Asked] = field(default_factory=list)
    server: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Like kill -9: the port is closed and every connection is reset."""
        if self.server is None:
            return
        self.server.close()
        for writer in tuple(self.writers):
            writer.transport.abort()
        self.server = None
        await until(lambda: not self.writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while True:
                asked = await self._read(reader)
                self.asked.append(asked)
                await self.script(self, asked, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        pairs = (line.split(":", 1) for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Asked(method, target, headers, body)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must become true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 -- another process decides
            await asyncio.sleep(0.01)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def render(folder: Path, **values: str) -> Path:
    """Run nginx/render.sh with these NGINX_ values; the folder of what it wrote."""
    certificate, key = make_certificate(folder)
    (folder / "page" / "assets").mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": PATH,
        "NGINX_CERT": str(certificate),
        "NGINX_KEY": str(key),
        "NGINX_WEB_ROOT": str(folder / "page"),
        "NGINX_TMP": str(folder / "tmp"),
        "NGINX_LOG": str(folder / "access.log"),
        "NGINX_ADDRESS": "127.0.0.1",
        **{f"NGINX_{name}": value for name, value in values.items()},
    }
    script = ROOT / "nginx" / "render.sh"
    subprocess.run([script, folder / "conf"], check=True, env=environment, timeout=PATIENCE)
    return folder / "conf"


class Door:
    """A running Nginx, rendered from nginx/templates, and its two gateways."""

    def __init__(self, folder: Path, connections: int = 1024) -> None:
        self.folder = folder
        self.https_port, self.http_port, port_a, port_b = free_ports(4)
        self.a, self.b = FakeGateway("a", port_a), FakeGateway("b", port_b)
        self.configuration = render(
            folder,
            GATEWAYS=f"127.0.0.1:{port_a} 127.0.0.1:{port_b}",
            HTTPS_PORT=str(self.https_port),
            HTTP_PORT=str(self.http_port),
            CONNECTIONS_PER_ADDRESS=str(connections),
        )
        self.tls = ssl.create_default_context(cafile=str(folder / "tls.crt"))
        self.url = f"https://127.0.0.1:{self.https_port}"

    async def __aenter__(self) -> Door:
        await self.a.start()
        await self.b.start()
        conf = self.configuration / "nginx.conf"
        self.process = subprocess.Popen(  # noqa: ASYNC220 -- a fork, no wait
            ["nginx", "-p", self.configuration, "-c", conf, "-g", "daemon off;"],
            env={"PATH": PATH},
        )
        self.client = httpx.AsyncClient(base_url=self.url, verify=self.tls, timeout=PATIENCE)
        await until(self._listens)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        self.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait, PATIENCE)
        await self.a.stop()
        await self.b.stop()

    def _listens(self) -> bool:
        assert self.process.poll() is None, "nginx ended; its message is above"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.https_port)) == 0

    @property
    def asked(self) -> list[Asked]:
        return [*self.a.asked, *self.b.asked]

    def script(self, script: Script) -> None:
        self.a.script = self.b.script = script

    def log_lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]
