"""The eyes: rules that parse and fire when they should, and names that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gateway.metrics import Metrics

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
RULES = MONITORING / "prometheus" / "rules"
RULE_FILES = sorted(RULES.glob("*.rules.yaml"))
DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
NAME = re.compile(r"\b(?:gateway_|vllm:|DCGM_|tandem_|process_|slo:|tandem:)[\w:]*")
OWN = {"tandem_engine_parked"}  # vllm/parked.py


def rules() -> list[dict]:
    groups = [g for file in RULE_FILES for g in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]


def targets() -> list[tuple[str, str]]:
    found = []
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            found += [(panel["title"], target["expr"]) for target in panel["targets"]]
    return found


def known_names() -> set[str]:
    recorded = (ROOT / "tests/config/vllm_metrics.txt").read_text().splitlines()
    names = {line for line in recorded if line and not line.startswith("#")}
    for family in Metrics().registry.collect():
        names.add(family.name)
        names.update({f"{family.name}{end}" for end in ("_total", "_bucket", "_count", "_sum")})
    return names | {rule["record"] for rule in rules() if "record" in rule} | OWN


def promtool(*arguments: str | Path, cwd: Path | None = None) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.fail("promtool is not installed (Debian: apt install prometheus)")
    done = subprocess.run(
        [tool, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr


def render(folder: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(MONITORING / script / "render.sh"), str(folder)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_rendered_configuration_is_valid(tmp_path: Path) -> None:
    done = render(
        tmp_path,
        "prometheus",
        PROM_GATEWAYS="gateway-a=127.0.0.1:1 gateway-b=127.0.0.1:2",
        PROM_ENGINES="vllm-a=127.0.0.1:3",
        PROM_SELF="127.0.0.1:4",
    )
    assert done.returncode == 0, done.stderr
    promtool("check", "config", tmp_path / "prometheus.yml")
    gateways = json.loads((tmp_path / "targets/gateway.json").read_text())
    assert gateways[1] == {"targets": ["127.0.0.1:2"], "labels": {"instance": "gateway-b"}}
    assert json.loads((tmp_path / "targets/dcgm.json").read_text()) == []
    assert "127.0.0.1:4" in (tmp_path / "prometheus.yml").read_text()


def test_a_target_without_a_port_is_refused(tmp_path: Path) -> None:
    done = render(tmp_path, "prometheus", PROM_GATEWAYS="gateway-a")
    assert done.returncode != 0
    assert "name=host:port" in done.stderr


def test_every_alert_fires_and_stays_quiet_as_written() -> None:
    promtool("check", "rules", *RULE_FILES)
    for file in sorted(RULES.glob("*.test.yaml")):
        promtool("test", "rules", file.name, cwd=RULES)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_is_explained_and_tested_both_ways(alert: dict) -> None:
    name, notes = alert["alert"], alert["annotations"]
    assert alert["labels"]["severity"] in {"page", "warning"}
    for key in ("summary", "description"):
        assert notes[key].strip()
        assert re.search(r"[\u4e00-\u9fff]", notes[f"{key}_zh"])
    assert notes["runbook"] == f"monitoring/runbooks.md#{name.lower()}"
    assert f"\n## {name}\n" in (MONITORING / "runbooks.md").read_text()
    tests = [
        test["name"]
        for file in RULES.glob("*.test.yaml")
        for test in yaml.safe_load(file.read_text())["tests"]
    ]
    assert f"{name} fires" in tests
    assert f"{name} stays quiet" in tests


def test_every_runbook_heading_has_its_alert() -> None:
    headings = re.findall(r"^## (\S+)$", (MONITORING / "runbooks.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for rule in ALERTS)


def test_rules_and_dashboards_use_only_names_that_exist() -> None:
    queries = [rule["expr"] for rule in rules()] + [expr for _, expr in targets()]
    used = {name for query in queries for name in NAME.findall(query)}
    assert len(used) > 15
    assert used <= known_names(), sorted(used - known_names())


def test_dashboards_are_read_only_and_each_panel_explains_itself() -> None:
    assert DASHBOARDS
    for file in DASHBOARDS:
        board = json.loads(file.read_text())
        assert board["editable"] is False
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in board["panels"]:
            assert panel["description"].strip(), panel["title"]
            assert panel["datasource"]["uid"] == "prometheus"


def test_mail_is_rendered_from_the_environment_and_the_password_stays_in_its_file(
    tmp_path: Path,
) -> None:
    done = render(
        tmp_path,
        "alertmanager",
        ALERT_MAIL_TO="ops@example.org",
        ALERT_SMTP_HOST="mail.example.org:587",
        ALERT_SMTP_USER="tandem",
    )
    assert done.returncode == 0, done.stderr
    made = yaml.safe_load((tmp_path / "alertmanager.yml").read_text())
    assert made["receivers"][0]["email_configs"][0]["to"] == "ops@example.org"
    assert made["global"]["smtp_smarthost"] == "mail.example.org:587"
    assert made["global"]["smtp_auth_password_file"] == "/run/secrets/smtp_password"


def test_without_a_mail_address_nothing_is_sent(tmp_path: Path) -> None:
    assert render(tmp_path, "alertmanager").returncode == 0
    made = yaml.safe_load((tmp_path / "alertmanager.yml").read_text())
    assert made["receivers"] == [{"name": "people"}]


def test_mail_without_a_server_is_refused_by_name(tmp_path: Path) -> None:
    done = render(tmp_path, "alertmanager", ALERT_MAIL_TO="ops@example.org")
    assert done.returncode != 0
    assert "ALERT_SMTP_HOST" in done.stderr
