"""The watchdog: what ends an engine, and what must never end one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from os import environ, kill

import pytest
from serve_life import Serve, alive, until
from watchdog import Judge, Limits, Look, numbers_of

Start = Callable[..., Serve]
LIMITS = Limits(frozen=45, interval=3, timeout=5, failures=3)
BAD = Look(False, None, "/health answered 500")


def seen(running: float = 0, steps: float = 0, kv: float = 0) -> Look:
    return Look(
        True,
        {
            "vllm:num_requests_running": running,
            "vllm:iteration_tokens_total_count": steps,
            "vllm:kv_cache_usage_perc": kv,
        },
    )


def test_a_slow_start_is_never_a_fault() -> None:
    judge = Judge(LIMITS)
    assert all(judge.see(now, BAD) is None for now in range(0, 3600, 3))


def test_three_failed_observations_and_not_two() -> None:
    judge = Judge(LIMITS)
    assert judge.see(0, seen()) is None
    assert judge.see(3, BAD) is None
    assert judge.see(6, BAD) is None
    assert judge.see(9, seen()) is None, "a good one in between starts the count again"
    assert judge.see(12, BAD) is None
    assert judge.see(15, BAD) is None
    assert "3 failed observations" in str(judge.see(18, BAD))


def test_work_without_steps_for_45_seconds() -> None:
    judge = Judge(LIMITS)
    judge.see(0, seen(running=1, steps=5))
    assert all(judge.see(now, seen(1, 5)) is None for now in range(3, 45, 3))
    assert "no step for 45 s" in str(judge.see(45, seen(1, 5)))


def test_an_hour_of_idling_is_no_hang_and_work_starts_its_own_clock() -> None:
    judge = Judge(LIMITS)
    assert all(judge.see(now, seen()) is None for now in range(0, 3600, 3))
    assert judge.idle_for(3597) == 3597
    assert judge.see(3600, seen(), probe_pending=True) is None
    assert all(judge.see(now, seen(), True) is None for now in range(3603, 3645, 3))
    assert judge.see(3645, seen(), probe_pending=True)


@pytest.mark.parametrize("moving", ["steps", "kv"])
def test_slow_steps_and_a_long_prefill_are_progress(moving: str) -> None:
    judge = Judge(LIMITS)
    for now in range(0, 3600, 3):
        assert judge.see(now, seen(running=1, **{moving: now // 30})) is None


def test_metrics_that_fail_do_not_hide_a_frozen_engine() -> None:
    judge = Judge(Limits(frozen=45, interval=3, timeout=5, failures=10**6))
    judge.see(0, seen(running=1))
    reasons = [judge.see(now, BAD) for now in range(3, 60, 3)]
    assert any(reasons)


def test_a_watchdog_that_was_paused_itself_blames_nobody() -> None:
    judge = Judge(LIMITS)
    judge.see(0, seen(running=1, steps=5))
    assert judge.see(600, seen(running=1, steps=5)) is None
    assert judge.see(630, seen(running=1, steps=5)) is None
    assert judge.see(648, seen(running=1, steps=5))


def test_only_the_numbers_that_tell_progress_are_read() -> None:
    text = (
        "# HELP vllm:num_requests_running x\n"
        'vllm:num_requests_running{engine="0",model_name="a b"} 2.0\n'
        'vllm:num_requests_running{engine="1",model_name="a b"} 1.0\n'
        "vllm:generation_tokens_total 1.5e+03\n"
        "process_cpu_seconds_total 77\n"
    )
    assert numbers_of(text) == {
        "vllm:num_requests_running": 3.0,
        "vllm:generation_tokens_total": 1500.0,
    }


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("frozen", "no step"),
        ("sick", "failed observations"),
        ("silent", "failed observations"),
        ("idle-hang", "no step"),
    ],
)
def test_a_live_engine_that_goes_wrong_is_killed_whole(
    serve: Start, order: str, words: str
) -> None:
    life = serve()
    life.wait_healthy()
    worker = life.worker()
    life.orders.write_text(order)
    assert life.ended() != 0
    last = life.log.strip().splitlines()[-1]
    assert "watchdog:" in last and words in last
    until(lambda: not alive(worker))


def test_a_stopped_api_server_is_killed(serve: Start) -> None:
    life = serve()
    life.wait_healthy()
    until(lambda: life.get("/metrics")[0] == 200)
    kill(life.leader(), signal.SIGSTOP)
    assert life.ended() != 0


def test_a_card_that_disappears_ends_the_engine(serve: Start, tmp_path) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\n[ "$1" = -L ] || {{ echo 0; exit; }}\n'
        f"echo 'GPU 0: x'\n[ -e {tmp_path}/lost ] || echo 'GPU 1: x'\n"
    )
    tool.chmod(0o755)
    life = serve(PATH=f"{tool.parent}:{environ['PATH']}", WATCHDOG_GPU_SECONDS="0.2")
    life.wait_healthy()
    (tmp_path / "lost").touch()
    assert life.ended() != 0
    assert "GPU lost: nvidia-smi lists 1 of 2" in life.log
