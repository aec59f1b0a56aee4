"""An engine of a hundred lines for the tests of serve.py: health, metrics, a worker, and faults.

The fault comes from FAKE_FAULT, or later from the file FAKE_ORDERS (a word; read at each request).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# It calls itself what vLLM's own workers call themselves.
WORKER = "import time; open('/proc/self/comm', 'w').write('VLLM::Worker'); time.sleep(600)"
STEPS = [0]
HOLD = threading.Event()


def order() -> str:
    file = os.environ.get("FAKE_ORDERS", "")
    if file and Path(file).exists():
        return Path(file).read_text().strip()
    return os.environ.get("FAKE_FAULT", "")


class Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, status: int, body: str = "") -> None:
        raw = body.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self) -> None:
        fault = order()
        if fault == "silent":
            HOLD.wait()
        if fault == "exit":
            os._exit(0)
        if self.path == "/health":
            self.reply(500 if fault == "sick" else 200)
        elif self.path == "/metrics":
            running = 1 if fault in ("frozen", "busy", "prefill") else 0
            STEPS[0] += fault in ("busy", "prefill")
            steps = 0 if fault == "prefill" else STEPS[0]
            kv = STEPS[0] / 1e6 if fault == "prefill" else 0
            self.reply(
                200,
                f'vllm:num_requests_running{{engine="0"}} {running}\n'
                f'vllm:iteration_tokens_total_count{{engine="0"}} {steps}\n'
                f'vllm:kv_cache_usage_perc{{engine="0"}} {kv}\n',
            )
        else:
            self.reply(200, '{"data": [{"id": "fake"}]}')

    def do_POST(self) -> None:
        if order() == "idle-hang":
            HOLD.wait()
        self.reply(200, "{}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    known, _ = parser.parse_known_args()
    worker = subprocess.Popen([sys.executable, "-c", WORKER])
    print(f"worker {worker.pid}", flush=True)
    if order() == "no-start":
        sys.exit(3)
    if order() == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = ThreadingHTTPServer(("127.0.0.1", known.port), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
