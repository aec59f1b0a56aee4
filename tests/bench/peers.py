"""The peers' own environments: installed on first use, at the versions named here."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("TANDEM_CACHE", Path.home() / ".cache" / "tandem")) / "bench"
PEERS = {
    "vllm-router": ["vllm-router==0.1.17"],
    "sglang-router": ["sglang-router==0.3.2"],
    "litellm": ["litellm[proxy]==1.108.7"],
}


def peer_python(name: str) -> Path:
    """The python of the peer's own environment, made on first use."""
    wanted = hashlib.sha256(repr(PEERS[name]).encode()).hexdigest()[:12]
    home = CACHE / f"{name}-{wanted}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PEERS[name]], check=True)
        (home / "complete").touch()
    return python
