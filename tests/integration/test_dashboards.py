"""Every question of the dashboards, asked of the live Prometheus of the running instance."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest

from tests.integration.tandem_instance import Tandem, until

MONITORING = Path(__file__).parents[2] / "monitoring"
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
# What an idle instance on a CPU must show already.
NEVER_EMPTY = (
    'up{job="gateway"} == 1',
    'up{job="vllm"} == 1',
    "gateway_engine_state",
    "vllm:num_requests_running",
)


def queries() -> list[str]:
    panels = [p for file in DASHBOARDS for p in json.loads(file.read_text())["panels"]]
    exprs = [target["expr"] for panel in panels for target in panel["targets"]]
    return [expr.replace("$__rate_interval", "1m") for expr in exprs]


@pytest.fixture
def ask(tandem: Tandem):
    if shutil.which("prometheus") is None:
        pytest.fail("prometheus is not installed (Debian: apt install prometheus)")
    with httpx.Client(base_url=tandem.address("prometheus"), timeout=30) as client:

        def answer(query: str) -> dict:
            got = client.get("/api/v1/query", params={"query": query})
            assert got.status_code == 200, (query, got.text)
            return dict(got.json()["data"])

        yield answer


def test_no_query_of_a_dashboard_is_refused(ask) -> None:
    assert len(queries()) > 15
    for query in queries():
        assert ask(query)["resultType"] in {"vector", "scalar"}


@pytest.mark.parametrize("query", NEVER_EMPTY)
def test_both_gateways_and_both_engines_are_seen(ask, query: str) -> None:
    until(lambda: len(ask(query)["result"]) >= 2, 120, f"two results of {query}")
