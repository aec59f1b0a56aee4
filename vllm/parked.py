"""What answers on the engine's port after too many failed starts.

Owns: the words that /health and /metrics say while parked, so that the gateway sees an engine that
is down, Prometheus sees why, and a person reads it with curl.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def _handler(name: str, reason: str) -> type[BaseHTTPRequestHandler]:
    metrics = (
        "# HELP tandem_engine_parked Gave up after too many failed starts; needs a person.\n"
        "# TYPE tandem_engine_parked gauge\n"
        f'tandem_engine_parked{{engine="{name}"}} 1\n'
    ).encode()
    refusal = json.dumps(
        {"error": {"message": reason, "type": "server_error", "param": None, "code": "parked"}}
    ).encode()

    class Parked(BaseHTTPRequestHandler):
        timeout = 10

        def _answer(self) -> None:
            told = self.path == "/metrics"
            body = metrics if told else refusal
            self.send_response(200 if told else 503)
            self.send_header("content-type", "text/plain" if told else "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            """Polls are no news."""

    return Parked


def serve_parked(host: str, port: int, name: str, reason: str) -> ThreadingHTTPServer:
    """Answers in the background until the process ends."""
    server = ThreadingHTTPServer((host, port), _handler(name, reason))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
