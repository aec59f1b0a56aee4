"""A scriptable engine on a real socket: vLLM's bytes, and every way in which it fails.

Its model is a list of byte pieces, one a token; a continuation has to send exactly the tokens so
far and gets the rest, decoded as vLLM does (nothing for half a letter, stop strings held back).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.fakes import engine_bytes as wire

PROMPT_IDS = [11, 12, 13]
FIRST_ID = 100
CONTEXT = 64
ROLE = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None}


@dataclass
class Fault:
    """What goes wrong with one generation, after `after` events or at byte `at` of the stream.

    http: answers `status` · html · not_http · garbage · error_event · abort · eof · done · cut
    (drops the connection) · silence
    """

    kind: str
    after: int = 0
    at: int | None = None
    status: int = 500


@dataclass
class FakeEngine:
    pieces: list[bytes]
    #: tokens in each event, over and over: vLLM merges them under load
    groups: list[int] = field(default_factory=lambda: [1])
    #: chunks to send instead of the model's, for answers with tools or several choices
    script: list[dict[str, Any]] | None = None
    whole: dict[str, Any] | None = None
    name: str = "fake"
    #: 0 writes each event at once, n writes slices of n bytes
    slices: int = 0
    drip: float = 0.0
    comments: bool = False
    crlf: bool = False
    #: takes requests and never says a word, like an API server under SIGSTOP
    mute: bool = False
    faults: deque[Fault] = field(default_factory=deque)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    accepted: int = 0
    aborted: int = 0
    host: str = "127.0.0.1"
    port: int = 0

    async def start(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._client, self.host, self.port or 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        await _rounds()  # what is accepted but not served yet gets its task
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        await _rounds()

    @property
    def generations(self) -> list[tuple[str, dict[str, Any]]]:
        return [(path, body) for path, body in self.requests if path.endswith("completions")]

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return False
        path = head.split(" ")[1]
        length = [line for line in head.split("\r\n") if line.startswith("content-length")]
        raw = await reader.readexactly(int(length[0].split(":")[1])) if length else b""
        body = json.loads(raw) if raw else {}
        self.requests.append((path, body))
        if self.mute:
            await reader.read()
            return False
        if path == "/v1/models":
            self._json(writer, {"data": [{"id": "m", "max_model_len": CONTEXT}]})
        elif path == "/detokenize":
            text = self._bytes(body["tokens"]).decode("utf-8", "replace")
            self._json(writer, {"prompt": text})
        else:
            return await self._generate(reader, writer, path, body)
        return True

    def _json(self, writer: asyncio.StreamWriter, body: Any, status: int = 200) -> None:
        self._send(writer, json.dumps(body).encode(), "application/json", status)

    def _send(self, writer: asyncio.StreamWriter, raw: bytes, kind: str, status: int = 200) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(raw)}\r\n\r\n"
        writer.write(head.encode() + raw)

    # A generation --------------------------------------------------------------------------

    async def _generate(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        path: str,
        body: dict[str, Any],
    ) -> bool:
        fault = self.faults.popleft() if self.faults else None
        if fault is not None and fault.kind == "cut" and fault.at is None and fault.after < 0:
            return False
        if fault is not None and fault.kind in ("http", "html", "not_http"):
            return self._wrong_answer(writer, fault)
        if not body.get("stream"):
            if fault is not None:
                return False
            self._json(writer, self.whole)
            return True
        stream = self._stream(path, body, fault)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        writer.write(head + b"transfer-encoding: chunked\r\n\r\n")
        gone = asyncio.ensure_future(reader.read(1))
        try:
            return await self._write(writer, stream, fault, gone)
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    def _wrong_answer(self, writer: asyncio.StreamWriter, fault: Fault) -> bool:
        if fault.kind == "http":
            error = {"error": {"message": "went wrong at http://10.0.0.1:8000", "type": "x"}}
            self._json(writer, error, fault.status)
            return True
        if fault.kind == "html":
            self._send(writer, b"<html>hello</html>", "text/html")
            return True
        writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        return False

    async def _write(
        self,
        writer: asyncio.StreamWriter,
        events: list[bytes],
        fault: Fault | None,
        gone: asyncio.Future[bytes],
    ) -> bool:
        raw = b"".join(events) if fault is not None and fault.at is not None else b""
        if raw and fault is not None:
            await self._chunks(writer, [raw[: fault.at]], gone)
            await self._flush(writer)
            return False
        sent = await self._chunks(writer, events, gone)
        if not sent:
            self.aborted += 1
            return False
        if fault is not None and fault.kind == "cut":
            await self._flush(writer)
            return False
        if fault is not None and fault.kind == "silence":
            await gone
            self.aborted += 1
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not gone.done()

    async def _flush(self, writer: asyncio.StreamWriter) -> None:
        """An abort would throw away what is still to be sent."""
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _chunks(
        self, writer: asyncio.StreamWriter, events: list[bytes], gone: asyncio.Future[bytes]
    ) -> bool:
        for event in events:
            size = self.slices or max(1, len(event))
            for at in range(0, len(event), size):
                part = event[at : at + size]
                writer.write(b"%x\r\n" % len(part) + part + b"\r\n")
                await writer.drain()
            await asyncio.sleep(self.drip)
            if gone.done():
                return False
        return True

    def _stream(self, path: str, body: dict[str, Any], fault: Fault | None) -> list[bytes]:
        chunks = self.script if self.script is not None else self._model(path, body)
        events = [wire.event(chunk) for chunk in chunks]
        if body.get("stream_options", {}).get("include_usage") and self.script is None:
            events.append(wire.event(self._usage(path, body, chunks)))
        events.append(b"data: [DONE]\n\n")
        if self.comments:
            events = [piece for event in events for piece in (b": keep-alive\n\n", event)]
        if self.crlf:
            events = [event.replace(b"\n", b"\r\n") for event in events]
        return self._spoilt(events, chunks, fault)

    def _spoilt(
        self, events: list[bytes], chunks: list[dict[str, Any]], fault: Fault | None
    ) -> list[bytes]:
        if fault is None or fault.at is not None:
            return events
        error = {"error": {"message": "EngineCore encountered an issue", "code": 500}}
        ends: dict[str, list[bytes]] = {
            "garbage": [b'data: {"cho\n\n'],
            "error_event": [wire.event(error), b"data: [DONE]\n\n"],
            "done": [b"data: [DONE]\n\n"],
            "half": [b'data: {"choices": [{"ind'],
            "abort": [wire.event(wire.aborted(chunks)), b"data: [DONE]\n\n"],
        }
        return events[: fault.after] + ends.get(fault.kind, [])

    # The model -----------------------------------------------------------------------------

    def ids(self) -> list[int]:
        """The ids of the answer: equal pieces have equal ids."""
        return [FIRST_ID + self.pieces.index(piece) for piece in self.pieces]

    def _bytes(self, ids: list[int]) -> bytes:
        return b"".join(self.pieces[i - FIRST_ID] if i >= FIRST_ID else b"?" for i in ids)

    def _model(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        chat = path == "/v1/chat/completions"
        done = 0
        if not chat and isinstance(body["prompt"], list):
            prompt = body["prompt"]
            done = len(prompt) - len(PROMPT_IDS)
            assert prompt[: len(PROMPT_IDS)] == PROMPT_IDS, prompt
            assert prompt[len(PROMPT_IDS) :] == self.ids()[:done], prompt
        budget = body.get("max_tokens")
        budget = (CONTEXT if chat else 16) if budget is None else budget
        outputs = list(wire.generated(self.pieces, self.ids(), self.groups, done, budget, body))
        chunks = [
            wire.chunk(chat, self.name, text, ids, fin, why) for text, ids, fin, why in outputs
        ]
        if chat:
            role = wire.named(chat, self.name) | {"choices": [{**ROLE, "finish_reason": None}]}
            if body.get("return_token_ids"):
                role["prompt_token_ids"] = PROMPT_IDS
            return [role, *chunks]
        for n, chunk in enumerate(chunks):
            ids = chunk["choices"][0].pop("token_ids")
            chunk["choices"][0]["prompt_token_ids"] = body["prompt"] if n == 0 else None
            if n == 0 and isinstance(body["prompt"], str):
                chunk["choices"][0]["prompt_token_ids"] = PROMPT_IDS
            chunk["choices"][0]["token_ids"] = ids
        return chunks

    def _usage(
        self, path: str, body: dict[str, Any], chunks: list[dict[str, Any]]
    ) -> dict[str, Any]:
        ids = [len(c["choices"][0].get("token_ids", ())) for c in chunks]
        prompt = body.get("prompt")
        prompts = len(prompt) if isinstance(prompt, list) else len(PROMPT_IDS)
        usage = {"prompt_tokens": prompts, "completion_tokens": sum(ids)}
        usage["total_tokens"] = prompts + sum(ids)
        return {**wire.named("chat" in path, self.name), "choices": [], "usage": usage}


async def _rounds() -> None:
    """Let the loop make and close its transports: each takes a few rounds."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def running(*engines: FakeEngine) -> AsyncIterator[None]:
    for engine in engines:
        await engine.start()
    try:
        yield
    finally:
        for engine in engines:
            await engine.stop()
