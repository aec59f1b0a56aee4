"""scripts/rollout.sh when one engine does not take what is new: a Docker of ours notes what runs.

Not here: a rollout of real engines (tests/integration/test_rollout.py, tests/stack/rollout).
"""

from __future__ import annotations

import pytest

from tests.unit.scripts.conftest import Machine

OLD, NEW = "engine:old", "engine:new"
FAILED, REFUSED, NOT_FIT = 1, 3, 4
# Each engine's image stands in a file of its name; $BAD is what goes wrong with the new one on b.
DOCKER = """
ran=$(dirname "$0")/ran
said=" $* "
image_of() { cat "$ran/$1"; }
bad() { [[ $BAD == "$1" && $said == *" vllm-b "* ]]; }
case "$*" in
  'compose ps'*) echo "id" ;;
  inspect*State.Pid*) echo 7 ;;
  inspect*RestartCount*)
    if [[ $(image_of vllm-b) == engine:new ]]; then echo "$RESTARTS"; else echo 0; fi ;;
  'compose up'*)
    engine=${!#}
    bad up && [[ ${VLLM_IMAGE:-} == engine:new ]] && exit 1
    printf '%s\\n' "${VLLM_IMAGE:-engine:old}" >"$ran/$engine"
    printf 'up %s %s\\n' "$engine" "${VLLM_IMAGE:-engine:old}" >>"$ran/log" ;;
  'compose run'*.starts) echo "forget $9" >>"$ran/log" ;;
  *'wait vllm-b healthy --seconds 10'*) bad late && exit 1 ;;
  *'wait vllm-a healthy --seconds 10'*) [[ $BAD == later ]] && exit 1 ;;
  *'wait vllm-b alive'*) bad alive && [[ $(image_of vllm-b) == engine:new ]] && exit 1 ;;
  *'canary vllm-b'*)
    if bad interrupt; then
      pid=$PPID
      parent() { cut -d' ' -f4 "/proc/$pid/stat"; }
      while grep -qa rollout.sh "/proc/$(parent)/cmdline"; do pid=$(parent); done
      kill -TERM "$pid"
    fi
    bad canary && [[ $(image_of vllm-b) == engine:new ]] && exit 1 ;;
  *'gateway.admin undrain'*) printf 'undrain %s\\n' "${!#}" >>"$ran/log" ;;
  *'gateway.admin drain'*) printf 'drain %s\\n' "${!#}" >>"$ran/log" ;;
esac
exit 0
"""


@pytest.fixture
def appliance(machine: Machine) -> Machine:
    machine.program("docker", DOCKER)
    machine.program("sleep", "exit 0")
    (machine.root / ".env").write_text(f"VLLM_IMAGE={OLD}\n")
    ran = machine.programs / "ran"
    ran.mkdir()
    for engine in ("vllm-a", "vllm-b"):
        (ran / engine).write_text(f"{OLD}\n")
    machine.variables |= {"TANDEM_MODE": "compose", "BAD": "nothing", "RESTARTS": "0"}
    return machine


def running(machine: Machine) -> list[str]:
    return [(machine.programs / "ran" / name).read_text().strip() for name in ("vllm-a", "vllm-b")]


def settings(machine: Machine) -> str:
    return (machine.root / ".env").read_text()


def test_a_new_image_runs_and_is_kept(appliance: Machine) -> None:
    done = appliance.run("scripts/rollout.sh", "--image", NEW)
    assert done.returncode == 0, done.stderr
    assert running(appliance) == [NEW, NEW]
    assert settings(appliance) == f"VLLM_IMAGE={NEW}\n"


def test_the_other_engine_fell_ill_before_anything_was_changed(appliance: Machine) -> None:
    done = appliance.run("scripts/rollout.sh", "vllm-a", BAD="late")
    assert done.returncode == REFUSED, done.stderr
    assert "vllm-a was not touched" in done.stderr
    assert not (appliance.programs / "ran" / "log").exists()


def test_the_other_engine_fell_ill_after_it_was_replaced(appliance: Machine) -> None:
    done = appliance.run("scripts/rollout.sh", BAD="later")
    assert done.returncode == FAILED, done.stderr
    log = (appliance.programs / "ran" / "log").read_text().splitlines()
    assert log == ["drain vllm-a", f"up vllm-a {OLD}", "undrain vllm-a"]


@pytest.mark.parametrize("wrong", ["up", "alive", "canary"])
def test_every_engine_gets_its_old_image_back(appliance: Machine, wrong: str) -> None:
    done = appliance.run("scripts/rollout.sh", "--image", NEW, "--seconds", "1", BAD=wrong)
    assert done.returncode == NOT_FIT, done.stderr
    assert running(appliance) == [OLD, OLD]
    assert settings(appliance) == f"VLLM_IMAGE={OLD}\n"
    log = (appliance.programs / "ran" / "log").read_text().splitlines()
    # The second one is back at work before the first one goes.
    assert log[-3:] == ["drain vllm-a", f"up vllm-a {OLD}", "undrain vllm-a"]
    assert "undrain vllm-b" in log[:-3]


def test_an_engine_that_ends_at_every_start_is_not_waited_for(appliance: Machine) -> None:
    more = {"BAD": "alive", "RESTARTS": "3"}
    done = appliance.run("scripts/rollout.sh", "--image", NEW, "--seconds", "600", **more)
    assert done.returncode == NOT_FIT, done.stderr
    assert running(appliance) == [OLD, OLD]


def test_an_interruption_says_what_it_left_behind(appliance: Machine) -> None:
    done = appliance.run("scripts/rollout.sh", "--image", NEW, BAD="interrupt")
    assert done.returncode == 130, done.stderr
    log = (appliance.programs / "ran" / "log").read_text().splitlines()
    assert log[-1] == "undrain vllm-b"
    assert settings(appliance) == f"VLLM_IMAGE={OLD}\n"
    assert "interrupted: engines may run with what is new" in done.stderr
