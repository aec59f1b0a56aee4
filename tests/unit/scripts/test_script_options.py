"""Every script's command line: help, wrong use, and dry runs that change nothing."""

from __future__ import annotations

import pytest

from tests.unit.scripts.conftest import Machine

SCRIPTS = ("setup", "keys", "engine", "rollout", "backup", "restore", "chaos", "bench")


def files(machine: Machine) -> set[str]:
    return {str(path) for path in machine.root.rglob("*") if ".locks" not in path.parts}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_comment_at_the_head(machine: Machine, script: str) -> None:
    said = machine.run(f"scripts/{script}.sh", "--help")
    assert said.returncode == 0
    assert f"Usage: scripts/{script}.sh" in said.stdout
    assert "Exit: 0" in said.stdout
    assert "set -E" not in said.stdout and "source" not in said.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_option_is_wrong_use(machine: Machine, script: str) -> None:
    before = files(machine)
    said = machine.run(f"scripts/{script}.sh", "--no-such-option")
    assert said.returncode == 2
    assert "--no-such-option" in said.stderr and f"scripts/{script}.sh --help" in said.stderr
    assert files(machine) == before


@pytest.mark.parametrize(
    ("script", "option"),
    [
        ("setup", "--weights"),
        ("setup", "--host"),
        ("setup", "--https-port"),
        ("rollout", "--image"),
        ("rollout", "--seconds"),
        ("backup", "--target"),
        ("restore", "--snapshot"),
        ("chaos", "--streams"),
        ("bench", "--only"),
    ],
)
def test_an_option_without_its_value_is_wrong_use(
    machine: Machine, script: str, option: str
) -> None:
    said = machine.run(f"scripts/{script}.sh", option)
    assert said.returncode == 2
    assert f"{option} needs a value" in said.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("engine", "drain"),
        ("engine", "drain", "vllm-z"),
        ("engine", "undrain", "vllm-a", "--wait"),
        ("engine", "explode", "vllm-a"),
        ("engine",),
        ("rollout", "vllm-z"),
        ("rollout", "--gateway", "vllm-a"),
        ("rollout", "--seconds", "soon"),
        ("setup", "--https-port", "70000"),
        ("setup", "--http-port", "0"),
        ("keys",),
        ("keys", "add"),
        ("keys", "add", "a", "b"),
        ("keys", "burn", "a"),
    ],
)
def test_wrong_use_says_how_it_is_meant(machine: Machine, arguments: tuple[str, ...]) -> None:
    said = machine.run(f"scripts/{arguments[0]}.sh", *arguments[1:])
    assert said.returncode == 2, said.stderr
    assert "error: " in said.stderr and "fix: " in said.stderr


@pytest.mark.parametrize(
    "arguments",
    [("engine", "status"), ("rollout",), ("rollout", "--dry-run"), ("backup",)],
)
def test_what_needs_an_instance_says_so(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.program("docker", "exit 1")
    said = machine.run(f"scripts/{arguments[0]}.sh", *arguments[1:])
    assert said.returncode == 5, said.stderr
    assert "docker compose up" in said.stderr
    tried = machine.run(f"scripts/{arguments[0]}.sh", *arguments[1:], TANDEM_MODE="try")
    assert tried.returncode == 5, tried.stderr
    assert "scripts/try.sh" in tried.stderr


def test_chaos_does_not_start_an_appliance(machine: Machine) -> None:
    machine.program("docker", "exit 1")
    said = machine.run("scripts/chaos.sh", "--yes", TANDEM_MODE="compose")
    assert said.returncode == 5, said.stderr
    assert "docker compose up" in said.stderr


def test_two_at_a_time_are_one_too_many(machine: Machine) -> None:
    """The second script is told at once, and changes nothing."""
    held = machine.bash(
        'take_lock keys; "$root/scripts/keys.sh" add alice && exit 1\n'
        "[[ $? == 7 ]]; [[ ! -e $root/secrets ]]"
    )
    assert held.returncode == 0, held.stderr
    assert "another script" in held.stderr
