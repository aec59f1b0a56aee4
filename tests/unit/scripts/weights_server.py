"""A server of small weights: counts what is asked for, cuts what it is told to cut."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SHARDS = tuple(f"model-0000{number}-of-00004.safetensors" for number in range(1, 5))
TEXTS = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json")


def tensors(size: int) -> bytes:
    """A whole file in the format of safetensors, with one tensor of so many bytes."""
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def model_files() -> dict[str, bytes]:
    files = dict.fromkeys(TEXTS, b"{}")
    files["config.json"] = b'{"model_type": "qwen2"}'
    files["merges.txt"] = b"#version: 0.2\n"
    files |= {name: tensors(5000 + len(name)) for name in SHARDS}
    index = {"weight_map": {f"layer.{number}": name for number, name in enumerate(SHARDS)}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    return files


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in model_files().items():
        (folder / name).write_bytes(content)


class WeightsServer:
    def __init__(self) -> None:
        self.files = model_files()
        # (name, first byte asked for), in the order of asking.
        self.asked: list[tuple[str, int]] = []
        # Bytes after which an answer is cut, once for each entry.
        self.cuts: dict[str, list[int]] = {}
        self.can_go_on = True
        self.url = ""


def _handler(server: WeightsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            content = server.files.get(name)
            if content is None:
                self.send_error(404)
                return
            wanted = self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0]
            first = int(wanted) if server.can_go_on else 0
            server.asked.append((name, int(wanted)))
            if first >= len(content) > 0 and first:
                self.send_response(416)
                self.send_header("content-range", f"bytes */{len(content)}")
                self.send_header("content-length", "0")
                self.end_headers()
                return
            self._send(name, content, first)

        def _send(self, name: str, content: bytes, first: int) -> None:
            self.send_response(206 if first else 200)
            if first:
                last = len(content) - 1
                self.send_header("content-range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("content-length", str(len(content) - first))
            self.end_headers()
            cuts = server.cuts.get(name)
            end = first + cuts.pop(0) if cuts else len(content)
            self.wfile.write(content[first:end])
            if end < len(content):
                self.close_connection = True

    return Handler


@contextmanager
def serve_weights() -> Iterator[WeightsServer]:
    server = WeightsServer()
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.url = f"http://127.0.0.1:{listener.server_address[1]}/model"
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(timeout=30)
