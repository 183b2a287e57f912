"""Tests of the cluster of docker-compose.yml."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from service.settings import ServiceSettings
from testing.data.digits import QUICK, SMALL_MODEL, archive, png
from testing.processes.compose import ROOT, Compose, order, parse
from testing.processes.processes import alive, children, eventually
from worker.settings import WorkerSettings


def test_the_environment_names_are_the_settings_own() -> None:
    services = parse((ROOT / "docker-compose.yml").read_text(), {})
    known = {f"ENGRAM_{name.upper()}" for name in ServiceSettings.model_fields | WorkerSettings.model_fields}
    for name in ("service", "worker", "worker-gpu"):
        for variable in services[name]["environment"]:
            assert variable in known or variable.startswith(("AWS_", "OTEL_")), variable


def test_redis_keeps_what_it_accepted_and_refuses_when_full() -> None:
    command = parse((ROOT / "docker-compose.yml").read_text(), {})["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


def test_everything_has_a_health_check_and_what_lasts_has_a_volume() -> None:
    services = parse((ROOT / "docker-compose.yml").read_text(), {})
    for name, service in services.items():
        assert name == "bucket" or service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        for file in filter(None, [service.get("build", {}).get("dockerfile")]):
            assert (ROOT / file).is_file()
    assert services["redis"]["volumes"]
    assert services["store"]["volumes"]
    placed = order(services)
    assert placed.index("redis") < placed.index("service")
    assert placed.index("store") < placed.index("bucket") < placed.index("worker")


def test_the_defaults_can_be_overridden() -> None:
    services = parse((ROOT / "docker-compose.yml").read_text(), {"STORE_USER": "someone"})
    assert services["service"]["environment"]["AWS_ACCESS_KEY_ID"] == "someone"
    assert services["store"]["environment"]["MINIO_ROOT_USER"] == "someone"


def test_nobody_from_elsewhere_gets_in_without_being_let_in() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    plain, opened = (parse(text, chosen) for chosen in ({}, {"ENGRAM_KEYS": "required", "PUBLISH": "0.0.0.0"}))
    assert plain["service"]["environment"]["ENGRAM_KEYS"] == "off"
    assert plain["service"]["ports"] == ["127.0.0.1:8000-8001:8000"]
    assert opened["service"]["environment"]["ENGRAM_KEYS"] == "required"
    assert opened["service"]["ports"] == ["0.0.0.0:8000-8001:8000"]
    assert [name for name, service in opened.items() if "ports" in service] == ["service", "prometheus", "grafana"]
    # Those two ask nobody for a key, and stay on this machine.
    for name in ("prometheus", "grafana"):
        assert all(port.startswith("127.0.0.1:") for port in opened[name]["ports"])


def finished(client: httpx.Client, location: str) -> dict[str, Any]:
    deadline = time.monotonic() + 240
    while True:
        job: dict[str, Any] = client.get(location).raise_for_status().json()
        if job["state"] in ("succeeded", "failed", "cancelled"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.2)


def serves(client: httpx.Client, version: int) -> bool:
    return bool(client.get("/v1/models/digits").json()["version"] == version)


def submit(client: httpx.Client, name: str, digits: tuple[int, ...]) -> str:
    answer = client.post(
        "/v1/models/digits/tasks",
        data={"name": name, "options": f"{QUICK}".replace("'", '"')},
        files={"data": ("digits.zip", archive(digits), "application/zip")},
    )
    assert answer.status_code == 202, answer.text
    location: str = answer.headers["Location"]
    return location


def test_two_replicas_and_two_workers_do_the_main_job(tmp_path: Path) -> None:
    compose = Compose(tmp_path)
    elsewhere = list(children(os.getpid()))  # processes of other tests' fixtures
    with compose.up({"worker": 2}):
        assert len(compose.addresses) == 2
        with (
            httpx.Client(base_url=compose.addresses[0], timeout=60) as first,
            httpx.Client(base_url=compose.addresses[1], timeout=60) as other,
        ):
            created = first.post("/v1/models", json={"name": "digits", **SMALL_MODEL})
            assert created.status_code == 201, created.text
            jobs = [submit(first, "zero-one", (0, 1)), submit(other, "two-three", (2, 3))]
            # Each is followed at the replica that it was not handed to.
            for client, location in zip((other, first), jobs, strict=True):
                job = finished(client, location)
                assert job["state"] == "succeeded", job
            for client in (first, other):
                assert eventually(partial(serves, client, 2), 60)
            images = [("image", (f"{digit}.png", png(digit, 100), "image/png")) for digit in range(4)]
            answers = [client.post("/v1/models/digits/predict", files=images).json() for client in (first, other)]
            assert answers[0] == answers[1]
            assert answers[0]["version"] == 2
            assert {one["task"] for one in answers[0]["predictions"]} <= {"zero-one", "two-three"}
        everyone = [process for process in children(os.getpid()) if process not in elsewhere]
    for name, processes in compose.processes.items():
        for process, port in processes:
            expected = (0, -15) if name == "store" else (0,)
            assert process.returncode in expected, (name, process.returncode, compose.log(name, port))
    assert eventually(lambda: alive(everyone) == [], 60)
