"""The appliance comes up from nothing, answers through the door, and is what compose.yaml says."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.stack.appliance import ENGINES, GATEWAYS, MODEL, SERVICES, Appliance, poll
from tests.stack.streams import ask


def test_every_service_is_up_and_healthy(appliance: Appliance) -> None:
    assert [service for service in SERVICES if not appliance.healthy(service)] == []
    assert appliance.client.get("/readyz").status_code == 200
    status = appliance.client.get("/v1/status").json()
    assert {one["name"]: one["state"] for one in status["engines"]} == dict.fromkeys(
        ENGINES, "healthy"
    )


def test_a_conversation_is_remembered_across_its_turns(appliance: Appliance) -> None:
    # Parts were killed before: a gateway may have to find Redis again first.
    poll(lambda: appliance.chat("is it well", max_tokens=1).status_code == 200, 60, "a turn runs")
    first = appliance.chat("the first thing", max_tokens=8)
    assert first.status_code == 200, first.text
    session = first.json()["session_id"]
    second = appliance.chat("the second thing", session_id=session, max_tokens=8)
    assert second.json()["status"] == "success"
    kept = appliance.client.get(f"/v1/sessions/{session}").json()
    roles = [message["role"] for message in kept["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert kept["messages"][2]["content"] == "the second thing"
    assert appliance.client.delete(f"/v1/sessions/{session}").status_code in (200, 204)
    assert appliance.client.get(f"/v1/sessions/{session}").status_code == 404


def test_an_openai_stream_comes_through_the_door_whole(appliance: Appliance) -> None:
    answer = ask(appliance, 1, tokens=32)
    assert answer.complete, answer
    assert answer.tokens == 32


def test_the_page_is_served_and_a_stranger_is_not(appliance: Appliance) -> None:
    assert "<!doctype html>" in appliance.client.get("/").text.lower()
    stranger = appliance.client.get("/v1/models", headers={"Authorization": "Bearer wrong"})
    assert stranger.status_code == 401
    for path in ("/metrics", "/internal/engines"):
        assert appliance.client.get(path).status_code == 404
    plain = httpx.get(f"http://127.0.0.1:{appliance.http_port}/", timeout=30)
    assert plain.status_code == 308
    assert plain.headers["location"] == f"{appliance.url}/"


def test_grafana_is_reached_through_the_door(appliance: Appliance) -> None:
    assert appliance.client.get("/grafana/api/health").status_code == 200


@pytest.mark.parametrize("service", SERVICES)
def test_limits_are_in_force_as_declared(appliance: Appliance, service: str) -> None:
    host = appliance.inspect(service)["HostConfig"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Type"] == "json-file"
    assert set(host["LogConfig"]["Config"]) >= {"max-size", "max-file"}
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["ReadonlyRootfs"] is (service not in ENGINES)
    assert not any("docker.sock" in bind for bind in host["Binds"] or ())


@pytest.mark.parametrize("service", sorted({*SERVICES} - {*ENGINES}))
def test_no_part_but_an_engine_runs_as_root(appliance: Appliance, service: str) -> None:
    status, user = appliance.execute(service, "id", "-u")
    assert status == 0
    assert user.strip() != "0"


def test_no_secret_is_in_the_environment_or_in_a_command_line(appliance: Appliance) -> None:
    for service in SERVICES:
        told = json.dumps(appliance.inspect(service))
        for name, secret in (*appliance.secrets.items(), ("key", appliance.key)):
            assert secret not in told, f"{name} in docker inspect of {service}"
    # The log of the door and of the gateways has a line for each request, and no word of it.
    canary = "canary7f31"
    assert appliance.chat(canary, max_tokens=4).status_code == 200
    for service in ("nginx", *GATEWAYS, *ENGINES):
        log = appliance.engine.run("logs", appliance.container(service))
        assert canary not in log and appliance.key not in log
    door = appliance.engine.run("logs", appliance.container("nginx")).splitlines()
    assert any(json.loads(line)["path"] == "/v1/chat" for line in door if line.startswith("{"))


def test_the_model_is_listed_under_its_name(appliance: Appliance) -> None:
    listed = appliance.client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == [MODEL]
