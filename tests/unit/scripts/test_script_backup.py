"""scripts/backup.sh and restore.sh with a real Redis and a real repository.

The instance is the smallest that they take for one: a folder as try mode has it, and a process that
is named as its supervisor. Not here: a whole instance (tests/integration/test_backup.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.redis_server import RedisServer, start_redis
from tests.unit.scripts.conftest import Machine

PASSWORD = "a-password-of-redis"


class SmallInstance:
    """`start` and `stop` its Redis; `redis` is a client."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine, self.folder = machine, folder
        self.server: RedisServer | None = None
        self.supervisor: subprocess.Popen[bytes] | None = None
        machine.variables |= {
            "TANDEM_MODE": "try",
            "TRY_DIR": str(folder),
            "BACKUP_TARGET": str(folder.parent / "repository"),
        }
        for name in ("secrets", "certificates", "redis"):
            (folder / name).mkdir(parents=True)
        (folder / "secrets" / "redis_password").write_text(f"{PASSWORD}\n")
        (folder / "secrets" / "api_keys").write_text(f"alice {'0' * 64}\n")
        (folder / "certificates" / "tls.crt").write_text("certificate")

    def start(self) -> redis.Redis:
        self.server = start_redis(self.folder / "redis", "--appendonly", "yes")
        (self.folder / "redis.conf").write_text(f"port {self.server.port}\nbind 127.0.0.1\n")
        named = ["bash", "-c", "exec -a supervisor.supervisord sleep 600"]
        self.supervisor = subprocess.Popen(named)
        (self.folder / "supervisord.pid").write_text(f"{self.supervisor.pid}\n")
        with redis.Redis(port=self.server.port) as client:
            client.config_set("requirepass", PASSWORD)
        return redis.Redis(port=self.server.port, password=PASSWORD, decode_responses=True)

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None
        if self.supervisor is not None:
            self.supervisor.kill()
            self.supervisor.wait(timeout=30)
            self.supervisor = None
        (self.folder / "supervisord.pid").unlink(missing_ok=True)

    def run(self, script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.machine.run(f"scripts/{script}.sh", *arguments, **more)

    def backup(self, *arguments: str) -> str:
        """Makes one and returns its id."""
        said = self.run("backup", *arguments)
        assert said.returncode == 0, said.stderr
        found = re.search(r"^saved: ([0-9a-f]{8})$", said.stdout, re.MULTILINE)
        assert found, said.stdout
        return found[1]


@pytest.fixture
def small(machine: Machine, tmp_path: Path) -> Iterator[SmallInstance]:
    for program in ("restic", "redis-cli"):
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is not installed; the tests of backups need it")
    machine.variables["RESTIC_CACHE_DIR"] = str(tmp_path / "restic-cache")
    instance = SmallInstance(machine, tmp_path / "instance")
    yield instance
    instance.stop()


def talk(client: redis.Redis, session: str) -> None:
    client.hset(f"tandem:session:{session}", mapping={"owner": "alice", "title": "标题"})
    client.rpush(f"tandem:session:{session}:messages", json.dumps({"content": session}))
    client.expire(f"tandem:session:{session}", 3600)


def test_conversations_come_back(small: SmallInstance) -> None:
    client = small.start()
    talk(client, "old")
    small.backup()
    # For the alert on old backups.
    assert time.time() - float(client.get("tandem:backup:last")) < 60
    talk(client, "new")
    client.delete("tandem:session:old")
    client.close()
    small.stop()
    said = small.run("restore", "--yes")
    assert said.returncode == 0, said.stderr
    assert "try.sh --detach" in said.stdout
    client = small.start()
    assert client.hget("tandem:session:old", "title") == "标题"
    assert client.lrange("tandem:session:old:messages", 0, -1) == ['{"content": "old"}']
    assert 0 < client.ttl("tandem:session:old") <= 3600
    assert not client.exists("tandem:session:new")
    # What is written from now on survives as well: the log goes on.
    talk(client, "later")
    client.close()
    small.stop()
    client = small.start()
    assert client.exists("tandem:session:old") and client.exists("tandem:session:later")
    client.close()


def test_two_in_a_row_are_two_snapshots(small: SmallInstance) -> None:
    """Redis counts its snapshots in whole seconds; the second one must not be the first one's."""
    client = small.start()
    talk(client, "first")
    first = small.backup("--no-prune")
    talk(client, "second")
    second = small.backup("--no-prune")
    client.close()
    assert first != second
    small.stop()
    for snapshot, there in ((first, 0), (second, 1)):
        assert small.run("restore", "--yes", "--snapshot", snapshot).returncode == 0
        client = small.start()
        assert client.exists("tandem:session:second") == there
        client.close()
        small.stop()


def test_secrets_come_back_with_their_rights(small: SmallInstance) -> None:
    small.start().close()
    (small.folder / "secrets").chmod(0o700)
    small.backup()
    small.stop()
    password = small.folder.parent / "kept-elsewhere"
    shutil.copy(small.folder / "secrets" / "restic_password", password)
    shutil.rmtree(small.folder)
    said = small.run("restore", "--yes", RESTIC_PASSWORD_FILE=str(password))
    assert said.returncode == 0, said.stderr
    assert (small.folder / "secrets" / "api_keys").read_text() == f"alice {'0' * 64}\n"
    assert (small.folder / "secrets").stat().st_mode & 0o777 == 0o700
    assert (small.folder / "certificates" / "tls.crt").read_text() == "certificate"


def test_what_was_there_is_kept(small: SmallInstance) -> None:
    small.start().close()
    small.backup()
    small.stop()
    (small.folder / "secrets" / "api_keys").chmod(0o644)
    (small.folder / "secrets" / "api_keys").write_text("changed")
    assert small.run("restore", "--yes", "--only-sessions").returncode == 0
    assert (small.folder / "secrets" / "api_keys").read_text() == "changed"
    assert small.run("restore", "--yes").returncode == 0
    kept = small.folder / "before-restore"
    assert (kept / "secrets" / "api_keys").read_text() == "changed"
    assert kept.stat().st_mode & 0o777 == 0o700


def test_nothing_is_restored_under_a_running_instance(small: SmallInstance) -> None:
    small.start().close()
    small.backup()
    said = small.run("restore", "--yes")
    assert said.returncode == 3
    assert "try.sh --stop" in said.stderr
    small.stop()
    said = small.run("restore")
    assert said.returncode == 6 and "--yes" in said.stderr
    dry = small.run("restore", "--dry-run")
    assert dry.returncode == 0 and "nothing was changed" in dry.stdout
    assert not (small.folder / "before-restore").exists()


def test_a_dry_run_saves_nothing(small: SmallInstance) -> None:
    small.start().close()
    small.backup()
    listed = small.run("restore", "--list")
    assert listed.returncode == 0 and "1 snapshots" in listed.stdout
    said = small.run("backup", "--dry-run")
    assert said.returncode == 0 and "would save" in said.stdout
    assert "1 snapshots" in small.run("restore", "--list").stdout


def test_a_wrong_password_is_told_and_harms_nothing(small: SmallInstance) -> None:
    small.start().close()
    small.backup()
    wrong = small.folder.parent / "wrong"
    wrong.write_text("wrong\n")
    said = small.run("backup", RESTIC_PASSWORD_FILE=str(wrong))
    assert said.returncode == 1
    assert "password" in said.stderr and PASSWORD not in said.stderr
    assert small.run("restore", "--list").returncode == 0


def test_the_time_of_the_last_one_is_noted(small: SmallInstance) -> None:
    small.start().close()
    small.backup()
    noted = (small.folder / "backup.prom").read_text()
    assert re.fullmatch(r"tandem_backup_last_success_timestamp_seconds \d{10}\n", noted)


def test_a_disk_that_is_full_is_no_backup(small: SmallInstance) -> None:
    """Redis cannot write its snapshot: an old one must not pass for a new one."""
    client = small.start()
    small.backup()
    target = small.folder / "redis" / "dump.rdb"
    target.unlink()
    target.mkdir()  # cannot be replaced by a file, by root neither
    said = small.run("backup")
    client.close()
    assert said.returncode == 1
    assert "snapshot" in said.stderr
    assert "1 snapshots" in small.run("restore", "--list").stdout


def test_no_secret_is_in_a_command_line(small: SmallInstance) -> None:
    """redis-cli and restic are given their passwords by file and environment."""
    log = small.folder.parent / "seen"
    for program in ("redis-cli", "restic"):
        real = shutil.which(program)
        small.machine.program(program, f'printf "%s\\n" "$*" >>"{log}"; exec {real} "$@"')
    small.start().close()
    small.backup()
    password = (small.folder / "secrets" / "restic_password").read_text().strip()
    seen = log.read_text()
    assert "bgsave" in seen and "backup" in seen
    assert PASSWORD not in seen and password not in seen


def test_a_missing_target_says_where_it_is_set(small: SmallInstance) -> None:
    small.start().close()
    said = small.run("backup", BACKUP_TARGET="")
    assert said.returncode == 2
    assert "BACKUP_TARGET" in said.stderr
    assert os.listdir(small.folder / "redis") == ["appendonlydir"]
