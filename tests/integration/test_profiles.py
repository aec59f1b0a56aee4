"""Every profile before vLLM's own parser, and the 128K flags on a real engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "vllm" / "profiles").glob("*.yaml"))
PATIENCE = 280
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
found = {}
for path in sys.argv[1:]:
    args = parser.parse_args(["--config", path])
    validate_parsed_serve_args(args)
    found[path] = {"served": args.served_model_name, "length": args.max_model_len,
                   "shutdown": args.shutdown_timeout, "hf": args.hf_overrides}
print("\\n" + json.dumps(found))
"""


def vllm_python() -> str:
    python = os.environ.get("TANDEM_VLLM_PYTHON", "")
    if not python:
        pytest.fail("TANDEM_VLLM_PYTHON names no Python with vLLM; scripts/test.sh sets it")
    return python


def test_every_profile_is_what_vllm_accepts(tmp_path: Path) -> None:
    command = [vllm_python(), "-P", "-c", PARSE, *map(str, PROFILES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found) == len(PROFILES) >= 6
    assert all(one["shutdown"] >= 30 for one in found.values())
    lengths = {Path(path).stem: one["length"] for path, one in found.items()}
    assert lengths["qwen2.5-7b"] == 32768
    assert lengths["qwen2.5-7b-128k"] == 131072


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _models(port: int, engine: subprocess.Popen[bytes], log: Path) -> dict:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert engine.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as got:
                return dict(json.load(got))
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def test_the_128k_flags_start_a_real_engine_that_says_131072(tmp_path: Path) -> None:
    """The same overrides as on the workstation, the tiny model in the big one's place."""
    python = vllm_python()
    big = (ROOT / "vllm/profiles/qwen2.5-7b-128k.yaml").read_text().splitlines()
    small = (ROOT / "vllm/profiles/tiny.yaml").read_text().splitlines()
    length = [line for line in big if line.startswith(("max-model-len:", "hf-overrides:"))]
    assert len(length) == 2
    rest = [line for line in small if not line.startswith("max-model-len:")]
    profile = tmp_path / "long.yaml"
    profile.write_text("\n".join([*rest, *length]) + "\n")
    model = tmp_path / "model"
    make = [python, str(ROOT / "vllm/tiny_model.py"), str(model)]
    subprocess.run(make, check=True, capture_output=True, timeout=PATIENCE)
    port = _free_port()
    environment = {
        **os.environ,
        "ENGINE_PORT": str(port),
        "ENGINE_HOST": "127.0.0.1",
        "MODEL_PATH": str(model),
        "STATE_DIR": str(tmp_path / "state"),
        "STOP_SECONDS": "5",
    }
    command = [python, str(ROOT / "vllm/serve.py"), "--profile", str(profile), "--name", "long"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        engine = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=tmp_path)
    try:
        assert _models(port, engine, log)["data"][0]["max_model_len"] == 131072
    finally:
        engine.send_signal(signal.SIGTERM)
        engine.wait(60)
