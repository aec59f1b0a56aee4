"""What a drain or a rollout must know before its next step, asked from within a gateway.

    python -m gateway.rollout_check wait vllm-a drained-move           this gateway knows of a drain
    python -m gateway.rollout_check wait vllm-a drained-wait           (see admin.py)
    python -m gateway.rollout_check wait vllm-a idle --seconds 150     and nothing runs there
    python -m gateway.rollout_check wait vllm-a undrained              it knows of no drain
    python -m gateway.rollout_check wait vllm-a alive --seconds 900    it answers its checks
    python -m gateway.rollout_check wait vllm-a healthy --seconds 60   it gets work again
    python -m gateway.rollout_check canary vllm-a --against vllm-b     it answers as well as that

Owns these two questions. Exit codes: 0 yes, 1 no (the reason is printed), 2 wrong use.
Not here: what is done about it (scripts/rollout.sh, engine.sh), the drain itself (admin.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.settings import Settings, SettingsError

LOOK_SECONDS = 0.25
ASK_SECONDS = 60.0
OVERVIEW_SECONDS = 5.0
CANARY_REQUESTS = 5
CANARY_TOKENS = 16
# Slower than the other by this factor and by this many seconds: not merely a busy moment.
SLOWER_FACTOR = 3.0
SLOWER_SECONDS = 1.0

WANTED = ("drained-move", "drained-wait", "undrained", "idle", "alive", "healthy")

Fetch = Callable[[str, bytes | None], Any]


def fetch(url: str, body: bytes | None = None) -> Any:
    """GET, or POST with a JSON body; the parsed answer."""
    headers = {"content-type": "application/json"} if body else {}
    request = urllib.request.Request(url, data=body, headers=headers)
    seconds = ASK_SECONDS if body else OVERVIEW_SECONDS
    with urllib.request.urlopen(request, timeout=seconds) as response:
        return json.load(response)


# Waiting -----------------------------------------------------------------------------------


def reached(engine: Mapping[str, Any], wanted: str) -> bool:
    drain = engine["drain"]
    if wanted == "undrained":
        return drain is None
    if wanted.startswith("drained-"):
        return bool(wanted == f"drained-{drain}")
    if wanted == "idle":
        # A gateway that has not heard of the drain yet may give it work in the next moment.
        return drain is not None and engine["in_flight"] == 0
    if wanted == "alive":
        return bool(engine["alive"])
    return bool(engine["state"] == "healthy")


def wait(
    name: str, wanted: str, seconds: float, overview: str, ask: Fetch = fetch, url: str = ""
) -> str | None:
    """None once this gateway sees the engine so; else what it saw last.

    With `url` the engine must answer there as well: the overview may still tell of its predecessor.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = _seen(name, overview, ask)
        if isinstance(seen, Mapping) and reached(seen, wanted):
            silence = _silence(url, ask) if url else None
            if silence is None:
                return None
            seen = silence
        if time.monotonic() >= deadline:
            state = seen if isinstance(seen, str) else f"{seen['state']} ({seen['reason']})"
            return f"{name} was not {wanted} within {seconds:g} s: {state}"
        time.sleep(LOOK_SECONDS)


def _seen(name: str, overview: str, ask: Fetch) -> Mapping[str, Any] | str:
    try:
        engines = ask(overview, None)["engines"]
    except (OSError, ValueError) as error:
        return f"the gateway does not answer ({type(error).__name__})"
    found: Mapping[str, Any] = next(one for one in engines if one["name"] == name)
    return found


def _silence(url: str, ask: Fetch) -> str | None:
    try:
        ask(f"{url}/v1/models", None)
    except (OSError, ValueError) as error:
        return f"it does not answer ({type(error).__name__})"
    return None


# Canary ------------------------------------------------------------------------------------


def canary(url: str, other: str, model: str, ask: Fetch = fetch) -> str | None:
    """None when the engine answers sensibly and about as fast as the other; else what is wrong."""
    try:
        ask_once(url, model, ask)  # the first answer warms what is compiled at first use
        own = [ask_once(url, model, ask) for _ in range(CANARY_REQUESTS)]
    except (OSError, ValueError, LookupError) as error:
        return f"it did not answer ({type(error).__name__})"
    texts = {text for text, _ in own}
    if any(nonsense(text) for text in texts):
        return "it answers with one character over and over"
    try:
        theirs = [ask_once(other, model, ask)[1] for _ in range(CANARY_REQUESTS)]
    except (OSError, ValueError, LookupError):
        return None  # nothing to compare with is no fault of this engine
    seconds, yardstick = statistics.median(s for _, s in own), statistics.median(theirs)
    if seconds > SLOWER_FACTOR * yardstick and seconds > yardstick + SLOWER_SECONDS:
        return f"it needs {seconds:.1f} s for an answer; the other engine {yardstick:.1f} s"
    return None


def ask_once(url: str, model: str, ask: Fetch) -> tuple[str, float]:
    """One short answer and its seconds."""
    body = {"model": model, "prompt": "1, 2, 3, 4,", "max_tokens": CANARY_TOKENS, "temperature": 0}
    began = time.monotonic()
    answer = ask(f"{url}/v1/completions", json.dumps(body).encode())
    return str(answer["choices"][0]["text"]), time.monotonic() - began


def nonsense(text: str) -> bool:
    """A broken path between GPUs gives «!!!!…» with every indicator green."""
    letters = text.strip()
    return len(letters) >= 8 and len(set(letters)) == 1


# The command -------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings.load()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    for name in filter(None, (arguments.engine, getattr(arguments, "against", None))):
        if name not in settings.engines:
            known = ", ".join(settings.engines)
            print(f"There is no engine named {name!r}. Engines: {known}.", file=sys.stderr)
            return 2
    complaint = _run(arguments, settings)
    if complaint is not None:
        print(complaint, file=sys.stderr)
    return 0 if complaint is None else 1


def _run(arguments: argparse.Namespace, settings: Settings) -> str | None:
    if arguments.command == "wait":
        overview = f"http://127.0.0.1:{settings.gateway_port}/internal/engines"
        itself = settings.engines[arguments.engine] if arguments.state == "alive" else ""
        return wait(arguments.engine, arguments.state, arguments.seconds, overview, url=itself)
    url, other = settings.engines[arguments.engine], settings.engines[arguments.against]
    return canary(url, other, settings.model_name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.rollout_check")
    commands = parser.add_subparsers(dest="command", required=True)
    waiting = commands.add_parser("wait", help="until this gateway sees the engine so")
    waiting.add_argument("engine")
    waiting.add_argument("state", choices=WANTED)
    waiting.add_argument("--seconds", type=float, default=60.0)
    trial = commands.add_parser("canary", help="does it answer as well as the other?")
    trial.add_argument("engine")
    trial.add_argument("--against", required=True)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
