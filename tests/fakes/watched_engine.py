"""A fake engine for a whole gateway process: it also answers what the health watch asks.

Owns /health, /metrics, canaries and /tokenize, how an engine behaves after SIGTERM, and answers
without an end for clients that read slowly. Not here: the model and its bytes (engine.py).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from tests.fakes import engine_bytes as wire
from tests.fakes.engine import PROMPT_IDS, ROLE, FakeEngine, Fault

# An answer of more tokens than this has no end.
ENDLESS = 1_000_000
METRICS = """vllm:num_requests_running{{engine="0"}} {running}
vllm:num_requests_waiting{{engine="0"}} 0
vllm:kv_cache_usage_perc{{engine="0"}} 0.01
vllm:iteration_tokens_total_count{{engine="0"}} {steps}
"""


@dataclass
class WatchedEngine(FakeEngine):
    running: int = 0
    #: after SIGTERM with --shutdown-timeout: what runs is finished, new requests get HTTP 500
    finishing: bool = False
    #: after SIGTERM without it: not one more byte, and the connections stay open
    silent: bool = False

    def refuse(self) -> None:
        """New connections are refused; those that are open stay."""
        self._server.close()

    async def _generate(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        path: str,
        body: dict[str, Any],
    ) -> bool:
        if path == "/health":
            self._json(writer, {})
        elif path == "/metrics":
            steps = 0.0 if self.silent else time.monotonic()
            text = METRICS.format(running=self.running, steps=steps)
            self._send(writer, text.encode(), "text/plain")
        elif path == "/tokenize":
            self._json(writer, {"count": len(PROMPT_IDS), "max_model_len": ENDLESS})
        elif self.finishing:
            self._wrong_answer(writer, Fault("http"))
        elif body.get("prompt") == "1":
            self._json(writer, {"choices": [{"text": "x"}]})
        else:
            self.running += 1
            try:
                if body.get("max_tokens", 0) > ENDLESS:
                    return await self._flood(writer)
                return await super()._generate(reader, writer, path, body)
            finally:
                self.running -= 1
        return True

    async def _chunks(
        self, writer: asyncio.StreamWriter, events: list[bytes], gone: asyncio.Future[bytes]
    ) -> bool:
        for event in events:
            if self.silent:
                await gone
                return False
            if not await super()._chunks(writer, [event], gone):
                return False
        return True

    async def _flood(self, writer: asyncio.StreamWriter) -> bool:
        """As fast as it is read, until the reader leaves."""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        writer.write(b"transfer-encoding: chunked\r\n\r\n")
        role = wire.named(True, self.name) | {"choices": [{**ROLE, "finish_reason": None}]}
        event = wire.event({**role, "prompt_token_ids": PROMPT_IDS})
        try:
            while True:
                writer.write(b"%x\r\n" % len(event) + event + b"\r\n")
                event = wire.event(wire.chunk(True, self.name, "x" * 2000, [100], None, None))
                await writer.drain()
        finally:
            self.aborted += 1
