"""Tests of the cluster of docker-compose.yml."""

import json
import os
import re
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import ServiceSettings
from testing.data.digits import QUICK, SMALL_MODEL, archive, png
from testing.processes.compose import ROOT, Compose, order, parse
from testing.processes.processes import alive, children, eventually
from vault.settings import VaultSettings
from worker.settings import WorkerSettings


def test_the_environment_names_are_the_settings_own() -> None:
    services = parse((ROOT / "docker-compose.yml").read_text(), {})
    known = {f"ENGRAM_{name.upper()}" for name in ServiceSettings.model_fields | WorkerSettings.model_fields}
    for name in ("service", "worker", "worker-gpu"):
        for variable in services[name]["environment"]:
            assert variable in known or variable.startswith(("AWS_", "OTEL_")), variable


def test_redis_keeps_what_it_accepted_and_refuses_when_full() -> None:
    command = parse((ROOT / "docker-compose.yml").read_text(), {})["redis"]["command"]
    options = dict(zip(command[2::2], command[3::2], strict=True))
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
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = parse(text, {"SECRETS_DIR": "/own"}, "secrets")
    assert {secret["file"].rpartition("/")[0] for secret in secrets.values()} == {"/own"}
    assert parse(text, {"WORKER_MEMORY": "64g"})["worker"]["deploy"]["resources"]["limits"]["memory"] == "64g"
    index = parse(text, {"TORCH_INDEX_GPU": "https://gpu"})["worker-gpu"]["build"]["args"]["TORCH_INDEX"]
    assert index == "https://gpu"


def test_nobody_from_elsewhere_gets_in_without_being_let_in() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    plain, opened = (parse(text, chosen) for chosen in ({}, {"ENGRAM_KEYS": "required", "PUBLISH": "0.0.0.0"}))
    assert plain["service"]["environment"]["ENGRAM_KEYS"] == "off"
    assert plain["service"]["ports"] == ["127.0.0.1:8000-8001:8000"]
    assert opened["service"]["environment"]["ENGRAM_KEYS"] == "required"
    assert opened["service"]["ports"] == ["0.0.0.0:8000-8001:8000"]
    assert [name for name, service in opened.items() if "ports" in service] == [
        "service",
        "proxy",
        "prometheus",
        "grafana",
    ]
    # Those two ask nobody for a key, and stay on this machine; the proxy does unless it is let out by name.
    for name in ("proxy", "prometheus", "grafana"):
        assert all(port.startswith("127.0.0.1:") for port in opened[name]["ports"])


def test_every_container_is_confined() -> None:
    for name, service in parse((ROOT / "docker-compose.yml").read_text(), {}).items():
        user, _, group = service["user"].partition(":")
        assert int(user) > 0, name
        assert group.isdigit(), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else []), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        assert "privileged" not in service, name


def test_no_secret_is_in_an_environment_or_a_command() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = parse(text, {}, "secrets")
    settings = {f"engram_{name}" for name in VaultSettings.model_fields}
    assert secrets.keys() <= settings
    for secret in secrets.values():
        held = (ROOT / secret["file"]).read_text()
        assert held == held.strip() != ""
        assert held not in ("engram",) or secret["file"].endswith("key_id")
        if not secret["file"].endswith("key_id"):
            assert held not in text
    for name, service in parse(text, {}).items():
        shown = service.get("environment", {}).keys() & {name.upper() for name in secrets}
        assert not shown, name
    for name in ("service", "worker", "worker-gpu"):
        assert set(parse(text, {})[name]["secrets"]) == secrets.keys()


def test_images_are_pinned_and_the_store_s_is_sound() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    images = {name: service["image"] for name, service in parse(text, {}).items() if "build" not in service}
    for name, image in images.items():
        assert re.fullmatch(r"[a-z0-9/.-]+:v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?@sha256:[0-9a-f]{64}", image), (name, image)
    assert images["redis"].startswith("valkey/valkey:9.")
    assert images["store"] == images["bucket"]
    # Before 4.18 racing writers could all win.
    store = re.match(r"chrislusf/seaweedfs:(\d+)\.(\d+)@", images["store"])
    assert store is not None
    assert (int(store[1]), int(store[2])) >= (4, 18)


def test_what_runs_on_processors_is_built_without_cuda() -> None:
    services = parse((ROOT / "docker-compose.yml").read_text(), {})
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    index = "https://download.pytorch.org/whl/cpu"
    assert f"ARG TORCH_INDEX={index}\n" in dockerfile
    for name, target, wanted in (
        ("service", "service", index),
        ("worker", "worker", index),
        ("worker-gpu", "worker", ""),
    ):
        assert services[name]["build"]["target"] == target
        assert services[name]["build"]["args"]["TORCH_INDEX"] == wanted
        assert f" AS {target}\n" in dockerfile
        assert services[name]["user"] in dockerfile


def test_the_proxy_buffers_nothing_and_lets_go_of_connections_first() -> None:
    rules = (ROOT / "deploy/caddy/Caddyfile").read_text()
    assert "flush_interval -1" in rules
    keepalive = re.search(r"keepalive (\d+)s", rules)
    assert keepalive is not None
    assert int(keepalive[1]) < ServiceSettings().keep_alive_seconds
    proxy = parse((ROOT / "docker-compose.yml").read_text(), {})["proxy"]
    assert proxy["profiles"] == ["proxy"]
    assert "./deploy/caddy/Caddyfile:/etc/caddy/Caddyfile:ro" in proxy["volumes"]


@pytest.mark.parametrize(
    "script", [*(ROOT / "deploy").glob("*/*.sh"), ROOT / "deploy/make-secrets", ROOT / "deploy/pin-digests"]
)
def test_scripts_are_shell(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)


def test_secrets_can_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    for _ in range(2):  # what is there stays
        subprocess.run([ROOT / "deploy/make-secrets", folder], check=True, capture_output=True)
        held = {path.name: path.read_text() for path in folder.iterdir()}
        assert {name for name, text in held.items() if re.fullmatch("[0-9a-f]{40}", text)} == held.keys()
    text = (ROOT / "docker-compose.yml").read_text()
    assert all(Path(one["file"]).is_file() for one in parse(text, {"SECRETS_DIR": str(folder)}, "secrets").values())
    assert len(set(held.values())) == 3
    assert subprocess.run([ROOT / "deploy/make-secrets", folder], check=True, capture_output=True).returncode == 0
    assert held == {path.name: path.read_text() for path in folder.iterdir()}


def test_the_store_s_gateway_gets_the_credentials_and_nothing_else_is_reached_from_outside(tmp_path: Path) -> None:
    """The real script, with a program in the place of SeaweedFS that shows what it was given."""
    weed = tmp_path / "weed"
    weed.write_text('#!/bin/sh\necho "$@"\n')
    weed.chmod(0o755)
    secrets = tmp_path / "secrets"
    subprocess.run([ROOT / "deploy/make-secrets", secrets], check=True, capture_output=True)
    for name in ("s3_access_key_id", "s3_secret_access_key"):
        (secrets / name).rename(secrets / f"engram_{name}")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), "SECRETS_FOLDER": str(secrets)}
    given = subprocess.run(
        ["sh", ROOT / "deploy/store/serve.sh"], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0", "-s3.autoCreateBucket=false"} <= set(given)
    (identity,) = json.loads((tmp_path / "s3.json").read_text())["identities"]
    assert identity["credentials"] == [
        {
            "accessKey": (secrets / "engram_s3_access_key_id").read_text(),
            "secretKey": (secrets / "engram_s3_secret_access_key").read_text(),
        }
    ]
    assert not any(word in " ".join(given) for word in identity["credentials"][0].values())


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
