"""The operator's scripts on the instance that the tests use."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.integration.tandem_instance import Tandem

ROOT = Path(__file__).parents[2]
SCRIPT_SECONDS = 280.0


def operate(
    tandem: Tandem, script: str, *arguments: str, seconds: float = SCRIPT_SECONDS, **more: str
) -> subprocess.CompletedProcess[str]:
    """Runs it to its end; the caller looks at what it said."""
    variables = {
        "TANDEM_MODE": "try",
        "TRY_DIR": str(tandem.folder),
        "TRY_PORT_BASE": str(tandem.ports["door"]),
        "TANDEM_URL": tandem.url,
        "TANDEM_API_KEY": tandem.key,
        "TANDEM_CA": tandem.ca,
        "TANDEM_MODEL": tandem.model,
    }
    return subprocess.run(
        [str(ROOT / "scripts" / script), *arguments],
        env={**os.environ, **variables, **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
