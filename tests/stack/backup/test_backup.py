"""backup.sh and restore.sh with containers: a conversation outlives the volume it was in."""

from __future__ import annotations

import pytest

from tests.stack.appliance import Appliance


@pytest.mark.timeout(480)
def test_a_conversation_outlives_its_volume(appliance: Appliance) -> None:
    session = appliance.chat("remember this", max_tokens=4).json()["session_id"]
    key = appliance.folder / "secrets" / "restic_password"
    key.write_text("a password for tests\n")
    target = {"BACKUP_TARGET": str(appliance.folder / "repository")}
    saved = appliance.script("backup.sh", **target)
    assert saved.returncode == 0, saved.stdout + saved.stderr
    refused = appliance.script("restore.sh", "--yes", **target)
    assert refused.returncode == 3, "it runs still"

    appliance.compose("down", "--volumes", "--timeout", "3")
    (appliance.folder / "secrets" / "api_keys").write_text("")
    restored = appliance.script("restore.sh", "--yes", **target)
    assert restored.returncode == 0, restored.stdout + restored.stderr
    appliance.compose("up", "--detach", "--wait", "--wait-timeout", "240", timeout=300)

    appliance.wait_whole()
    kept = appliance.client.get(f"/v1/sessions/{session}").json()
    assert kept["messages"][0]["content"] == "remember this"
