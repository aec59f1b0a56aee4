"""scripts/chaos.sh: a fault under load, and the table says that nobody lost an answer.

Those that have no test of their own: engines are killed in test_engine_faults.py.
"""

from __future__ import annotations

import pytest

from tests.integration.operators import operate
from tests.integration.tandem_instance import Tandem

SMALL = ("--yes", "--streams", "8", "--tokens", "150")
# The environment of the tests is made on first use.
CHAOS_SECONDS = 560


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", ["drain-engine", "kill-redis", "stop-worker"])
def test_nobody_loses_an_answer(tandem: Tandem, fault: str) -> None:
    done = operate(tandem, "chaos.sh", *SMALL, fault, seconds=CHAOS_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == fault
    assert int(cells[2]) >= 8, "every caller has at least one answer"
    assert cells[4:8] == ["0"] * 4
    assert cells[9] != "no"


def test_it_asks_before_it_kills(tandem: Tandem) -> None:
    before = tandem.pid("vllm-a")
    done = operate(tandem, "chaos.sh", "kill-engine", seconds=CHAOS_SECONDS)
    assert done.returncode == 6
    assert "--yes" in done.stderr
    assert tandem.pid("vllm-a") == before
