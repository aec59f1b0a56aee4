"""serve.py: nothing is left behind, deaths are told, starts are counted, stops are kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from serve_life import VLLM, Serve, alive, as_json, until

Start = Callable[..., Serve]


def test_an_engine_that_ends_with_status_0_is_a_failure_and_takes_its_worker_along(
    serve: Start,
) -> None:
    life = serve()
    life.wait_healthy()
    worker = life.worker()
    assert alive(worker)
    life.orders.write_text("exit")
    assert life.ended() != 0
    assert "ended by itself" in life.log
    until(lambda: not alive(worker))


def test_a_dead_worker_ends_the_engine_at_once(serve: Start) -> None:
    """Its API server would tell its callers only seconds later."""
    life = serve()
    life.wait_healthy()
    leader, worker = life.leader(), life.worker()
    os.kill(worker, signal.SIGKILL)
    until(lambda: not alive(leader))
    assert life.ended() != 0
    assert "VLLM::Worker died" in life.log


def test_a_stop_is_passed_on_and_ends_with_0_and_is_no_failed_start(serve: Start) -> None:
    life = serve()
    life.wait_healthy()
    worker = life.worker()
    assert life.starts() == "1"
    assert life.stop() == 0
    assert life.starts() == "0"
    assert not alive(worker)


def test_an_engine_that_does_not_hear_the_stop_is_killed(serve: Start) -> None:
    life = serve(FAKE_FAULT="deaf", STOP_SECONDS="0.5")
    life.wait_healthy()
    leader = life.leader()
    assert life.stop() == 0
    assert "killed" in life.log
    assert not alive(leader)


def test_five_failed_starts_park_it_and_it_says_why_everywhere(serve: Start) -> None:
    for count in range(1, 6):
        life = serve(FAKE_FAULT="no-start")
        assert life.ended() == 3
        assert life.starts() == str(count)
    parked = serve(FAKE_FAULT="no-start")
    status, body = until(lambda: (got := parked.get("/health"))[0] and got)
    assert status == 503
    assert as_json(body)["error"]["code"] == "parked"
    assert 'tandem_engine_parked{engine="vllm-a"} 1' in parked.get("/metrics")[1]
    assert "is parked" in parked.log
    check = subprocess.run(
        [sys.executable, str(VLLM / "serve.py"), "--check"],
        env={**os.environ, "ENGINE_PORT": str(parked.port)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert check.returncode == 1
    assert "parked" in check.stdout
    assert parked.stop() == 0
    assert parked.starts() == "0", "a person restarts it: it tries again"


def test_a_start_that_lasts_clears_the_count(serve: Start) -> None:
    assert serve(FAKE_FAULT="no-start").ended() == 3
    life = serve(SETTLED_SECONDS="0.2")
    until(lambda: life.starts() == "0")
    assert "1 start(s) did not last" in life.log


def test_what_a_killed_serve_left_is_killed_at_the_next_start(serve: Start) -> None:
    first = serve()
    first.wait_healthy()
    leader, worker = first.leader(), first.worker()
    first.process.send_signal(signal.SIGKILL)
    first.ended()
    assert alive(leader)
    second = serve()
    until(lambda: not alive(leader) and not alive(worker))
    second.wait_healthy()
    assert "earlier start" in second.log


def test_the_wait_before_a_start_can_be_stopped(serve: Start) -> None:
    assert serve(FAKE_FAULT="no-start").ended() == 3
    life = serve(RETRY_SECONDS="3600,3600")
    until(lambda: "the next one in" in life.log)
    assert life.stop() == 0


def test_gpu_memory_is_waited_for_until_the_deadline(serve: Start, tmp_path) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: x" || echo 20000\n')
    tool.chmod(0o755)
    path = f"{tool.parent}:{os.environ['PATH']}"
    life = serve(PATH=path, GPU_FREE_SECONDS="0.3")
    life.wait_healthy()
    assert "GPU memory is still in use ([20000] MiB)" in life.log


def test_an_engine_stands_back_where_it_is_told_to(serve: Start) -> None:
    life = serve(ENGINE_NICE="5")
    life.wait_healthy()
    assert os.getpriority(os.PRIO_PROCESS, life.worker()) == 5


def test_a_profile_sets_the_environment_and_what_is_set_wins(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serve import Plan

    profile = tmp_path / "p.yaml"
    profile.write_text("#env FROM_PROFILE=1\n#env SET_ALREADY=profile\nshutdown-timeout: 7\n")
    monkeypatch.setenv("SET_ALREADY", "outside")
    monkeypatch.setenv("MODEL_PATH", "/m")
    plan = Plan("x", profile, ("--served-model-name", "n"))
    environment = plan.environment()
    assert environment["FROM_PROFILE"] == "1"
    assert environment["SET_ALREADY"] == "outside"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert plan.stop_seconds() == 22
    assert plan.command()[-4:] == ["--model", "/m", "--served-model-name", "n"]


def test_a_missing_profile_is_named() -> None:
    asked = subprocess.run(
        [sys.executable, str(VLLM / "serve.py"), "--profile", "/nowhere.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.returncode == 2
    assert "/nowhere.yaml" in asked.stderr
