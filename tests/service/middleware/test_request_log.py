"""Tests of request ids and of the log's line for each request."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from service.middleware.request_log import request_id
from testing.data.digits import QUICK, archive, png
from testing.servers.service import Service, wait_until

PNG = {"Content-Type": "image/png"}
LINES = "engram.service.requests"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, LINES):
        yield caplog


def fields(caplog: pytest.LogCaptureFixture, route: str) -> list[dict[str, object]]:
    """What the lines of a route say, once there is one."""
    wait_until(lambda: any(getattr(record, "route", None) == route for record in caplog.records))
    return [vars(record) for record in caplog.records if getattr(record, "route", None) == route]


def test_an_id_is_taken_over_when_it_is_well_formed() -> None:
    assert request_id([(b"accept", b"*/*"), (b"x-request-id", b"Root=1-67891233-abc")]) == "Root=1-67891233-abc"
    for wrong in (b"", b"a b", b"a\nb", b"x" * 129, b'{"a":1}', "\u00fc".encode()):
        made = request_id([(b"x-request-id", wrong)])
        assert len(made) == 32
        assert made != request_id([])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/none", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/v1/models", 405),
        ("POST", "/v1/models", 415),
        ("GET", "/v1/models?limit=0", 422),
        ("GET", "/readyz", 503),
    ],
)
def test_every_answer_names_its_request(empty: Service, method: str, path: str, status: int) -> None:
    answer = empty.client.request(method, path, headers={"X-Request-ID": "mine-1"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (status, "mine-1")
    if status >= 400:
        assert answer.json()["request_id"] == "mine-1"


def test_what_nobody_foresaw_is_answered_with_the_id(empty: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(empty.runtime.live, "models", lambda: 1 / 0)
    answer = empty.client.get("/readyz", headers={"X-Request-ID": "mine-2"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (500, "mine-2")
    assert (answer.json()["code"], answer.json()["request_id"]) == ("internal_error", "mine-2")


def test_one_line_tells_of_a_request_and_no_secret_of_it(service: Service, lines: pytest.LogCaptureFixture) -> None:
    image = png(0, 1)
    path = "/v1/models/digits/predict?top_k=2"
    answer = service.client.post(path, content=image, headers=PNG)
    (line,) = fields(lines, "/v1/models/{model}/predict")
    assert (line["method"], line["status"], line["model"]) == ("POST", 200, "digits")
    assert (line["request_bytes"], line["response_bytes"]) == (len(image), len(answer.content))
    seconds = line["duration_seconds"]
    assert isinstance(seconds, float)
    assert 0 < seconds < 300
    assert service.client.post(f"{path}&key=hunter22", content=image, headers=PNG).status_code == 422
    wait_until(lambda: len(fields(lines, "/v1/models/{model}/predict")) == 2)
    assert "hunter22" not in lines.text


def test_a_job_remembers_who_asked_for_it(service: Service, lines: pytest.LogCaptureFixture) -> None:
    answer = service.client.post(
        "/v1/models/digits/tasks",
        data={"name": "high", "options": f"{QUICK}".replace("'", '"')},
        files={"data": ("data.zip", archive((8, 9)))},
        headers={"X-Request-ID": "teach-1"},
    )
    job = service.vault.jobs.get(answer.json()["job"]["id"])
    assert job.extra["request_id"] == "teach-1"


def test_probes_do_not_fill_the_log(empty: Service, lines: pytest.LogCaptureFixture) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        empty.client.get(path)
    empty.client.get("/v1/models")
    fields(lines, "/v1/models")
    assert [record for record in lines.records if record.name == LINES and "/v1" not in record.getMessage()] == []
