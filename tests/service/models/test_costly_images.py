"""Tests of images that take long to decode, beside ordinary ones."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.settings import ServiceSettings
from testing.data.costly import jpeg_of_scans, slow_jpeg
from testing.data.digits import archive, png
from testing.servers.service import Service, running, wait_until

PREDICT = "/v1/models/digits/predict"
EXPLAIN = "/v1/models/digits/explain"
JPEG = {"Content-Type": "image/jpeg"}
PNG = {"Content-Type": "image/png"}
LIMITS = {"max_image_scans": 10**6, "max_image_parts": 10**6, "decode_threads": 1}


@pytest.fixture(scope="module")
def slow() -> bytes:
    return slow_jpeg()


def costly(service: Service) -> int:
    """How many requests with costly images are under way."""
    return service.runtime.decoder._requests.taken


def children(service: Service) -> list[int]:
    return [process.pid for process in service.runtime.decoder._bounded._all if process.pid is not None]


def test_costly_images_keep_no_ordinary_one_waiting(learned_settings: ServiceSettings, slow: bytes) -> None:
    bounded = learned_settings.model_copy(
        update={**LIMITS, "max_image_seconds": 600, "decode_processes": 2, "decode_queue": 3}
    )
    with running(bounded) as service, ThreadPoolExecutor(3) as pool:
        address = service.url.removeprefix("http://").split(":")
        length = f"Content-Length: {len(slow)}\r\nContent-Type: image/jpeg\r\nHost: localhost\r\n\r\n".encode()
        clients = [socket.create_connection((address[0], int(address[1]))) for _ in range(3)]
        for client in clients:
            pool.submit(client.sendall, b"POST " + PREDICT.encode() + b" HTTP/1.1\r\n" + length + slow)
        wait_until(lambda: costly(service) == 3)
        answer = service.client.post(PREDICT, content=png(0, 100), headers=PNG)
        assert answer.json()["predictions"][0]["task"] == "low"
        assert costly(service) == 3, "the ordinary one was answered meanwhile"
        for route in (PREDICT, EXPLAIN):
            refused = service.client.post(route, content=slow, headers=JPEG)
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            assert "Retry-After" in refused.headers
        wait_until(lambda: len(children(service)) == 2)
        working = children(service)
        for client in clients:
            client.close()
        wait_until(lambda: costly(service) == 0)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in working))


def test_a_costly_image_fails_alone(learned_settings: ServiceSettings, slow: bytes) -> None:
    with running(learned_settings.model_copy(update={**LIMITS, "max_image_seconds": 0.2})) as service:
        files = [("image", ("x", one, "image/png")) for one in (png(0, 100), slow, png(2, 100), slow)]
        answer = service.client.post(PREDICT, files=files)
        assert answer.status_code == 200
        first, second, third, fourth = answer.json()["predictions"]
        assert (first["task"], third["task"]) == ("low", "mid")
        for one in (second, fourth):
            assert (one["error"]["status"], one["error"]["code"]) == (422, "image_too_costly")
        for route in (PREDICT, EXPLAIN):
            alone = service.client.post(route, content=slow, headers=JPEG)
            assert (alone.status_code, alone.json()["code"]) == (422, "image_too_costly")
        shown = service.client.get("/metrics").text
        assert 'engram_images_total{outcome="refused"} 4.0' in shown
        assert 'engram_images_total{outcome="decoded"} 2.0' in shown


def test_an_image_of_more_scans_than_any_real_one_is_refused(reader: Service) -> None:
    answer = reader.client.post(PREDICT, content=jpeg_of_scans(6000), headers=JPEG)
    assert (answer.status_code, answer.json()["code"]) == (422, "image_too_costly")
    assert answer.json()["detail"] == "the image has more than 500 scans"


def test_a_costly_image_that_is_within_its_limits_is_answered(reader: Service) -> None:
    first, second = (
        reader.client.post(PREDICT, content=jpeg_of_scans(count, 4000), headers=JPEG).json()["predictions"]
        for count in (10, 450)
    )
    assert first == second


def test_an_upload_is_tried_within_the_same_limits(learned_settings: ServiceSettings, slow: bytes) -> None:
    limits = {**LIMITS, "max_image_seconds": 0.2}
    with running(learned_settings.model_copy(update=limits)) as service:
        upload = archive((), extra={f"digit-{digit}/{number}.png": slow for digit in (4, 5) for number in (0, 1)})
        answer: httpx.Response = service.client.post(
            "/v1/models/digits/tasks", data={"name": "slow"}, files={"data": ("x.zip", upload)}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "image_too_costly")
