"""scripts/backup.sh and restore.sh on a whole instance: yesterday's conversation goes on.

The shared instance is ended and started again for it, and is whole afterwards.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import try_sh
from tests.integration.operators import operate
from tests.integration.tandem_instance import Tandem

START_SECONDS = 600


def say(tandem: Tandem, prompt: str, **more: str) -> dict[str, str]:
    body = {"prompt": prompt, "max_tokens": 8, **more}
    answer = tandem.client.post("/v1/chat", json=body)
    assert answer.status_code == 200, answer.text
    said: dict[str, str] = answer.json()
    return said


def turns(tandem: Tandem, session: str) -> list[str]:
    seen = tandem.client.get(f"/v1/sessions/{session}")
    assert seen.status_code == 200, seen.text
    return [one["content"] for one in seen.json()["messages"] if one["role"] == "user"]


@pytest.mark.timeout(900)
def test_a_conversation_survives_the_loss_of_everything(tandem: Tandem, tmp_path: Path) -> None:
    target = str(tmp_path / "repository")
    password = tmp_path / "password"
    password.write_text("kept elsewhere\n")
    more = {"RESTIC_PASSWORD_FILE": str(password), "RESTIC_CACHE_DIR": str(tmp_path / "cache")}
    session = say(tandem, "first")["session_id"]
    saved = operate(tandem, "backup.sh", "--target", target, **more)
    assert saved.returncode == 0, saved.stdout + saved.stderr
    say(tandem, "after the backup", session_id=session)
    refused = operate(tandem, "restore.sh", "--target", target, "--yes", **more)
    assert refused.returncode == 3, refused.stderr

    base = tandem.ports["door"]
    try:
        stopped = try_sh(tandem.folder, base, "--stop", seconds=180)
        assert stopped.returncode == 0, stopped.stderr
        restored = operate(tandem, "restore.sh", "--target", target, "--yes", **more)
        assert restored.returncode == 0, restored.stdout + restored.stderr
    finally:
        started = try_sh(tandem.folder, base, "--detach", seconds=START_SECONDS)
    assert started.returncode == 0, started.stdout + started.stderr
    tandem.wait_healthy()

    assert turns(tandem, session) == ["first"]
    assert say(tandem, "and on", session_id=session)["session_id"] == session
    assert turns(tandem, session) == ["first", "and on"]
