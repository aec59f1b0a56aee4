"""The door's configuration: what the real nginx accepts, and what must never stand in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.door_gateways import PATH, ROOT, render

TEMPLATES = ROOT / "nginx" / "templates"
SITE = (TEMPLATES / "site.conf.template").read_text()


@pytest.mark.parametrize("grafana", ["", "127.0.0.1:3000"])
def test_nginx_accepts_what_is_rendered(tmp_path: Path, grafana: str) -> None:
    folder = render(tmp_path, GATEWAYS="127.0.0.1:1 127.0.0.1:2", GRAFANA=grafana)
    checked = subprocess.run(
        ["nginx", "-t", "-p", folder, "-c", folder / "nginx.conf"],
        env={"PATH": PATH}, capture_output=True, text=True,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr
    left = [path.name for path in folder.iterdir() if "${" in path.read_text()]
    assert left == []


def test_a_missing_value_is_named(tmp_path: Path) -> None:
    script = ROOT / "nginx" / "render.sh"
    done = subprocess.run(
        [script, tmp_path / "conf"], env={"PATH": PATH}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "NGINX_GATEWAYS" in done.stderr


def test_values_are_taken_literally(tmp_path: Path) -> None:
    page = tmp_path / "a&b|c"
    folder = render(tmp_path, GATEWAYS="127.0.0.1:1", WEB_ROOT=str(page))
    assert f"root {page};" in (folder / "site.conf").read_text()


def test_each_gateway_is_listed_again_for_the_time_when_both_have_failed(tmp_path: Path) -> None:
    upstream = (render(tmp_path, GATEWAYS="127.0.0.1:1 127.0.0.1:2") / "upstream.conf").read_text()
    for gateway in ("127.0.0.1:1", "127.0.0.1:2"):
        assert len(re.findall(rf"server {gateway} ", upstream)) == 2
        assert re.search(rf"server {gateway} max_fails=0 backup", upstream)
    idle = re.search(r"keepalive_timeout (\d+)s", upstream)
    assert idle and int(idle[1]) < 3


def test_no_location_routes_metrics_or_administration() -> None:
    locations = re.findall(r"^\s*location (.*) \{", SITE, re.MULTILINE)
    assert locations
    assert not [one for one in locations if re.search(r"metrics|internal|admin|docs", one)]


def test_whatever_reaches_a_gateway_is_held_to_its_method() -> None:
    for block in re.findall(r"\n    location (?!@)[^\n]*\{\n(.*?)\n    \}", SITE, re.DOTALL):
        if "proxy_pass http://gateways" in block:
            assert "$request_method" in block and "return 405" in block


def test_only_answers_are_asked_twice() -> None:
    for head, block in re.findall(r"\n    location ([^\n]*)\{\n(.*?)\n    \}", SITE, re.DOTALL):
        if re.search(r"sessions|auth", head):
            assert "non_idempotent" not in block


def test_a_stream_is_not_held_back_and_outlives_a_long_silence() -> None:
    gateway = (TEMPLATES / "gateway.conf.template").read_text()
    assert "proxy_buffering off;" in gateway
    assert "gzip off;" in gateway
    read = re.search(r"proxy_read_timeout (\d+)s", gateway)
    again = re.search(r"proxy_next_upstream_timeout (\d+)s", gateway)
    assert read and again and int(again[1]) < int(read[1])
