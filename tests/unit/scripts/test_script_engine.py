"""scripts/engine.sh ends when every gateway that runs has followed: our own Docker notes what runs.

Not here: real engines that are drained (tests/integration/test_engine_script.py).
"""

from __future__ import annotations

import pytest

from tests.unit.scripts.conftest import Machine

DOCKER = """
ran=$(dirname "$0")/ran
case "$*" in
  'compose ps'*) echo "${!#}" ;;
  inspect*"$GONE") echo 0 ;;
  inspect*) echo 7 ;;
  'compose exec'*) echo "${*:4}" >>"$ran" ;;
esac
[[ $* == *"$DEAF"*rollout_check* ]] && exit 1
exit 0
"""


@pytest.fixture
def appliance(machine: Machine) -> Machine:
    machine.program("docker", DOCKER)
    (machine.root / ".env").write_text("")
    machine.variables |= {"TANDEM_MODE": "compose", "GONE": "nobody", "DEAF": "nobody"}
    return machine


def ran(machine: Machine) -> list[str]:
    return (machine.programs / "ran").read_text().splitlines()


@pytest.mark.parametrize(
    ("command", "state"),
    [
        (("drain", "vllm-a"), "drained-move"),
        (("drain", "vllm-a", "--wait"), "drained-wait"),
        (("undrain", "vllm-a"), "undrained"),
    ],
)
def test_both_gateways_are_waited_for(
    appliance: Machine, command: tuple[str, ...], state: str
) -> None:
    done = appliance.run("scripts/engine.sh", *command)
    assert done.returncode == 0, done.stderr
    look = f"python -m gateway.rollout_check wait vllm-a {state} --seconds 10"
    assert ran(appliance)[1:] == [f"gateway-a {look}", f"gateway-b {look}"]


def test_one_that_does_not_follow_is_named(appliance: Machine) -> None:
    done = appliance.run("scripts/engine.sh", "drain", "vllm-a", DEAF="gateway-b")
    assert done.returncode == 1
    assert "gateway-b has not followed" in done.stderr


def test_one_that_does_not_run_is_not_waited_for(appliance: Machine) -> None:
    done = appliance.run("scripts/engine.sh", "drain", "vllm-a", GONE="gateway-a")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in ran(appliance)] == ["gateway-b", "gateway-b"]
