"""`python -m gateway`: start once, serve, end in good order.

Exit codes: 0 ended as asked, 2 a setting cannot be used, 70 the event loop stood still.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import uvicorn
import uvloop

from gateway import logs
from gateway.app import build
from gateway.last_connections import Server
from gateway.settings import Settings, SettingsError

# The door keeps idle connections for 2 s; other clients may keep theirs for longer than that.
KEEP_ALIVE_SECONDS = 75
BACKLOG = 4096


def main() -> int:
    try:
        settings = Settings.load()
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    logs.setup(settings.log_level)
    uvloop.run(serve(settings))
    return 0


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; returns when the last answer is done."""
    app, parts = build(settings)
    config = uvicorn.Config(
        app,
        host=settings.gateway_host,
        port=settings.gateway_port,
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=None,
    )
    # What is loaded by now stays; the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    await asyncio.shield(Server(config, parts.lifecycle, settings.drain_seconds).serve())


if __name__ == "__main__":
    raise SystemExit(main())
