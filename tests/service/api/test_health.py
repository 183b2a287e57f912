"""Tests of health checks, readiness, draining and metrics."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.lifecycle.draining import Draining
from service.settings import ServiceSettings
from testing.data.digits import SMALL_MODEL, png
from testing.data.models import create, learn, submit
from testing.processes.forked import fork
from testing.servers.service import PATIENCE, Service, running, wait_until
from vault.vault import Vault

PNG = {"Content-Type": "image/png"}


def reason(service: Service) -> str | None:
    response = service.client.get("/readyz")
    return None if response.status_code == 200 else str(response.json()["reason"])


def test_readiness_follows_what_can_answer(empty: Service) -> None:
    assert empty.client.get("/livez").json() == {"status": "alive"}
    wait_until(lambda: reason(empty) == "nothing_learned")
    assert empty.client.get("/readyz", params={"allow_empty": True}).status_code == 200
    empty.client.post("/v1/models", json={"name": "digits", **SMALL_MODEL})
    assert reason(empty) == "nothing_learned"
    learn(empty.vault, "low", (0, 1))
    wait_until(lambda: reason(empty) is None)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_balancers_may_ask_for_the_head_alone(empty: Service, path: str) -> None:
    wait_until(lambda: reason(empty) == "nothing_learned")
    whole, head = empty.client.get(path), empty.client.head(path)
    assert head.status_code == whole.status_code == (503 if path == "/readyz" else 200)
    assert head.content == b""
    assert int(head.headers["Content-Length"]) > 0
    assert head.headers["Content-Type"] == whole.headers["Content-Type"]
    assert empty.client.get(path).content  # the connection still knows where an answer begins
    refused = empty.client.post(path)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")


def test_not_ready_while_the_only_model_cannot_be_loaded(learned_settings: ServiceSettings) -> None:
    assert learned_settings.store_folder is not None
    for blob in (learned_settings.store_folder / "blobs").iterdir():
        blob.write_bytes(b"damaged")
    with running(learned_settings) as service:
        wait_until(lambda: reason(service) == "no_model_loads")
        assert service.client.get("/readyz", params={"allow_empty": True}).status_code == 503
        answer = service.client.post("/v1/models/digits/predict", content=png(0, 1), headers=PNG)
        assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
        assert "Retry-After" in answer.headers
        assert service.client.get("/livez").status_code == 200


def test_metrics_have_base_units_and_routes_for_labels(service: Service) -> None:
    wait_until(lambda: 'engram_swaps_total{outcome="done"}' in service.client.get("/metrics").text)
    service.client.post("/v1/models/digits/predict", content=png(0, 1), headers=PNG).raise_for_status()
    service.client.get("/v1/models/none/versions")
    service.client.get("/nowhere/at/all")
    text = service.client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    requests = {
        (s.labels["method"], s.labels["route"], s.labels["status"]): s.value
        for s in samples
        if s.name == "engram_http_request_duration_seconds_count"
    }
    assert requests["POST", "/v1/models/{model}/predict", "200"] == 1
    assert requests["GET", "/v1/models/{model}/versions", "404"] == 1
    assert requests["any", "unmatched", "404"] == 1
    values = {sample.name: sample.value for sample in samples}
    assert values["engram_live_version"] == 2
    assert values["engram_batch_images_count"] == 1
    images = {s.labels["outcome"]: s.value for s in samples if s.name == "engram_images_total"}
    assert images == {"decoded": 1, "refused": 0}


def follow(address: str, following: threading.Event) -> None:
    """Follow a job that nobody works on until the service ends the stream."""
    with contextlib.suppress(httpx.TransportError), httpx.stream("GET", address, timeout=PATIENCE) as response:
        for _ in response.iter_lines():
            following.set()


def test_a_service_that_is_to_stop_says_so_first(learned_settings: ServiceSettings) -> None:
    with Vault.connect(learned_settings) as vault:
        job = submit(vault, "high", (8, 9)).id
    following = threading.Event()
    environment = {
        **os.environ,
        "ENGRAM_STORE_URL": learned_settings.store_url,
        "ENGRAM_REDIS_URL": learned_settings.redis_url,
        "ENGRAM_DRAIN_SECONDS": "300",  # which the second signal cuts short
    }
    with fork("service", ["service", "--port", "0"], environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().decode().split()[-1]
            with httpx.Client(base_url=address, timeout=PATIENCE) as client:
                wait_until(lambda: client.get("/readyz").status_code == 200)
                stream = threading.Thread(target=follow, args=(f"{address}/v1/jobs/{job}/events", following))
                stream.start()
                assert following.wait(PATIENCE)
                process.send_signal(signal.SIGTERM)
                wait_until(lambda: client.get("/readyz").status_code == 503)
                assert client.get("/readyz").json()["reason"] == "draining"
                answer = client.post("/v1/models/digits/predict", content=png(0, 1), headers=PNG)
                assert answer.status_code == 200
            assert stream.is_alive()
            process.send_signal(signal.SIGTERM)
            stream.join(PATIENCE)
            assert not stream.is_alive(), "an open event stream keeps the service from stopping"
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def test_the_server_hears_of_a_signal_a_while_after_the_balancers() -> None:
    reached = threading.Event()
    draining = Draining(0.5)
    before = signal.signal(signal.SIGTERM, lambda number, frame: reached.set())
    try:
        draining.install()
        began = time.monotonic()
        signal.raise_signal(signal.SIGTERM)
        assert draining.begun
        assert reached.wait(PATIENCE)
        assert time.monotonic() - began > 0.4
    finally:
        draining.uninstall()
        signal.signal(signal.SIGTERM, before)


def test_several_apps_fit_into_one_process(settings: ServiceSettings) -> None:
    with running(settings) as one, running(settings) as other:
        create(one.vault)
        assert other.client.get("/v1/models/digits").status_code == 200
        wait_until(lambda: "engram_live_models 1.0" in other.client.get("/metrics").text)


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_the_interface_describes_itself(empty: Service, path: str) -> None:
    assert empty.client.get(path).status_code == 200
