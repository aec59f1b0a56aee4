"""A stand-in engine that costs almost nothing: vLLM's bytes on a clock, no model.

Each token's text carries the moment at which it was written (CLOCK_MONOTONIC, shared by all
processes of a machine), so that a reader knows how long the way through a proxy took.
Run as `python -m tests.bench.standin --port N`. A question says how fast it wants its answer:
`pace=0.05/0.02` is the first token after 50 ms, and 20 ms between two; so one engine, and a proxy
that is started once, serve all scenarios.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from typing import Any

import httptools
import uvloop

ROLE = (
    '{"id":"chatcmpl-%s","object":"chat.completion.chunk","created":1700000000,"model":"standin",'
    '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
    '"finish_reason":null%s}]%s}'
)
DELTA = (
    b'data: {"id":"chatcmpl-%s","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"standin","choices":[{"index":0,"delta":{"content":" @%d"},"logprobs":null,'
    b'"finish_reason":null%s}]}\n\n'
)
LAST = (
    b'data: {"id":"chatcmpl-%s","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"standin","choices":[{"index":0,"delta":{"content":" @%d"},"logprobs":null,'
    b'"finish_reason":"length","stop_reason":null%s}]}\n\n'
)
USAGE = (
    b'data: {"id":"chatcmpl-%s","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"standin","choices":[],"usage":{"prompt_tokens":12,"total_tokens":%d,'
    b'"completion_tokens":%d}}\n\n'
)
METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="standin"}} {running}
vllm:num_requests_waiting{{engine="0",model_name="standin"}} 0.0
vllm:kv_cache_usage_perc{{engine="0",model_name="standin"}} 0.01
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_sum{{engine="0",model_name="standin"}} {steps}
vllm:iteration_tokens_total_count{{engine="0",model_name="standin"}} {steps}
"""
MODELS = {"object": "list", "data": [{"id": "standin", "object": "model", "max_model_len": 32768}]}


def _budget(request: dict[str, Any]) -> int:
    """sglang-router renames the field on its way."""
    return int(request.get("max_tokens") or request.get("max_completion_tokens") or 16)


def _pace(request: dict[str, Any]) -> tuple[float, float]:
    words = str(request["messages"][0]["content"])[:64].split()
    told = next((word[5:] for word in words if word.startswith("pace=")), "0.05/0.02")
    ttft, _, interval = told.partition("/")
    return float(ttft), float(interval)


class Engine:
    """What all connections share."""

    def __init__(self) -> None:
        self.running = 0
        self.requests = 0


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection; requests one after the other."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._url, self._body = b"", bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:  # a router that asks whether HTTP/2 is spoken
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._engine.running -= 1

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body, self._body = bytes(self._body), bytearray()
        self._engine.requests += 1
        if not self._url.startswith(b"/v1/chat") and not self._url.startswith(b"/v1/completions"):
            self._answer_plainly()
            return
        request = json.loads(body)
        if request.get("stream"):
            self._stream(request)
        else:
            self._complete(request)

    # Answers -------------------------------------------------------------------------------

    def _plain(self, body: bytes, kind: bytes = b"application/json") -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % (kind, len(body)) + body)

    def _answer_plainly(self) -> None:
        if self._url.startswith(b"/metrics"):
            text = METRICS.format(running=float(self._engine.running), steps=time.monotonic())
            self._plain(text.encode(), b"text/plain")
        elif self._url.startswith(b"/v1/models"):
            self._plain(json.dumps(MODELS).encode())
        else:
            self._plain(b'{"model_path":"standin","status":"ok"}')

    def _complete(self, request: dict[str, Any]) -> None:
        tokens = _budget(request)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": " word" * tokens},
            "text": " word" * tokens,
            "finish_reason": "length",
        }
        usage = {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 12 + tokens}
        answer = {
            "id": f"chatcmpl-{self._engine.requests}",
            "object": "chat.completion",
            "created": 1700000000,
            "model": "standin",
            "choices": [choice],
            "usage": usage,
        }
        self._plain(json.dumps(answer).encode())

    def _stream(self, request: dict[str, Any]) -> None:
        self._engine.running += 1
        self._left = self._wanted = _budget(request)
        self._ids = bool(request.get("return_token_ids"))
        self._usage = bool((request.get("stream_options") or {}).get("include_usage"))
        self._id = b"%032x" % self._engine.requests
        loop = asyncio.get_running_loop()
        ttft, self._interval = _pace(request)
        self._due = loop.time() + ttft
        self._timer = loop.call_at(self._due, self._first)

    def _first(self) -> None:
        prompt = ',"prompt_token_ids":[1,2,3,4,5,6,7,8,9,10,11,12]' if self._ids else ""
        token_ids = ',"token_ids":null' if self._ids else ""
        role = b"data: " + (ROLE % (self._id.decode(), token_ids, prompt)).encode() + b"\n\n"
        head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        self._transport.write(head + b"%x\r\n%s\r\n" % (len(role), role))
        self._token()

    def _token(self) -> None:
        self._left -= 1
        ids = b',"token_ids":[%d]' % (self._left + 100) if self._ids else b""
        now = time.monotonic_ns()
        if self._left > 0:
            self._chunk(DELTA % (self._id, now, ids))
            self._due += self._interval
            self._timer = asyncio.get_running_loop().call_at(self._due, self._token)
            return
        event = LAST % (self._id, now, ids)
        if self._usage:
            event += USAGE % (self._id, 12 + self._wanted, self._wanted)
        self._timer = None
        self._engine.running -= 1
        event += b"data: [DONE]\n\n"
        self._transport.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event))

    def _chunk(self, event: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))


async def serve(port: int) -> None:
    engine = Engine()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(engine), "127.0.0.1", port, backlog=4096, reuse_port=True
    )
    gc.freeze()
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.port))


if __name__ == "__main__":
    main()
