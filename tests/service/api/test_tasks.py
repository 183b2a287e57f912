"""Tests of tasks submitted over HTTP, whose refusals leave nothing behind."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import ServiceSettings
from testing.data.digits import QUICK, archive
from testing.data.models import create, learn
from testing.servers.redis import RedisServer
from testing.servers.service import PATIENCE, Service, running, wait_until

TASKS = "/v1/models/digits/tasks"


def upload(service: Service, name: str | None, data: bytes | None, options: str | None = None) -> httpx.Response:
    parts: list[tuple[str, Any]] = []
    if name is not None:
        parts.append(("name", (None, name)))
    if options is not None:
        parts.append(("options", (None, options)))
    if data is not None:
        parts.append(("data", ("data.zip", data, "application/zip")))
    return service.client.post(TASKS, files=parts)


def stored(service: Service) -> list[str]:
    """Every object but the models' own."""
    store = service.vault.objects
    return [path for folder in ("jobs", "data", "open", "recent") for path in store.list(folder)]


def test_an_upload_becomes_a_job(service: Service) -> None:
    data = archive((8, 9))
    response = upload(service, "high", data, json.dumps(QUICK))
    assert response.status_code == 202
    job = response.json()["job"]
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert set(job) == {
        *("id", "kind", "model", "task", "state", "phase", "progress", "attempts", "created_at", "error", "result"),
        "finished_at",
    }
    assert (job["model"], job["task"], job["state"], job["attempts"]) == ("digits", "high", "queued", 0)
    assert job["finished_at"] is None
    assert service.client.get(response.headers["Location"]).json() == job
    record = service.vault.jobs.get(job["id"])
    assert record.options["epochs"] == QUICK["epochs"]
    assert service.vault.objects.get(f"data/{record.data}") == data


@pytest.mark.parametrize(
    ("name", "data", "options", "status", "code"),
    [
        (None, b"x", None, 422, "invalid_request"),
        ("new", None, None, 422, "invalid_request"),
        ("new", b"x", "{", 400, "invalid_json"),
        ("new", b"x", "[]", 422, "invalid_request"),
        ("new", b"x", '{"epochs": 0}', 422, "invalid_request"),
        ("new", b"x", '{"epoch": 1}', 422, "invalid_request"),
        ("", b"x", None, 422, "invalid_name"),
        ("a/b", b"x", None, 422, "invalid_name"),
        ("..", b"x", None, 422, "invalid_name"),
        ("a\nb", b"x", None, 422, "invalid_name"),
        ("a\u202eb", b"x", None, 422, "invalid_name"),
        ("cats ", b"x", None, 422, "invalid_name"),
        (" cats", b"x", None, 422, "invalid_name"),
        ("cats\u200b", b"x", None, 422, "invalid_name"),
        ("cats\u3164", b"x", None, 422, "invalid_name"),
        ("cafe\u0301", b"x", None, 422, "invalid_name"),
        ("x" * 101, b"x", None, 422, "invalid_name"),
        ("new", b"", None, 422, "not_an_archive"),
        ("new", b"neither zip nor tar", None, 422, "not_an_archive"),
        ("new", archive((8, 9), 1), None, 422, "too_few_images"),
        ("new", archive((8, 9), 4, {"../x.png": b"x"}), None, 422, "archive_unsafe_path"),
        ("low", archive((8, 9), 4), None, 409, "task_exists"),
    ],
)
def test_what_is_refused_leaves_no_trace(
    reader: Service, name: str | None, data: bytes | None, options: str | None, status: int, code: str
) -> None:
    response = upload(reader, name, data, options)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert stored(reader) == []
    assert reader.client.get("/v1/jobs").json() == {"jobs": [], "next": None}


def test_one_class_is_refused_where_the_method_needs_two(service: Service) -> None:
    create(service.vault, "paper", settings={"reads": "all"})
    data: list[tuple[str, Any]] = [("name", (None, "x")), ("data", ("x", archive((8,), 4)))]
    refused = service.client.post("/v1/models/paper/tasks", files=data)
    assert (refused.status_code, refused.json()["code"]) == (422, "too_few_classes")
    assert "a task of the method eidetic that reads all needs at least two" in refused.json()["detail"]
    assert service.vault.objects.list("data") == []
    assert service.client.post(TASKS, files=data).status_code == 202


def test_options_that_the_method_does_not_have_are_refused(service: Service) -> None:
    create(service.vault, "paper", method="rnf", settings={})
    data: list[tuple[str, Any]] = [("name", (None, "x")), ("data", ("x", archive((8, 9), 4)))]
    asked = [*data, ("options", (None, '{"mixed_precision": true}'))]
    refused = service.client.post("/v1/models/paper/tasks", files=asked)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_options")
    assert "mixed_precision" in refused.json()["detail"]
    assert service.vault.objects.list("data") == []
    taken = service.client.post(TASKS, files=asked)
    assert taken.status_code == 202
    assert service.vault.jobs.get(taken.json()["job"]["id"]).options["mixed_precision"] is True


def test_a_name_that_an_open_job_has_is_taken(service: Service) -> None:
    first = upload(service, "grün & blau", archive((8, 9), 4))
    assert first.status_code == 202
    second = upload(service, "grün & blau", archive((6, 7), 4))
    assert (second.status_code, second.json()["code"]) == (409, "task_exists")
    assert len(service.vault.objects.list("data")) == 1
    service.client.post(f"/v1/jobs/{first.json()['job']['id']}/cancel").raise_for_status()
    assert upload(service, "grün & blau", archive((6, 7), 4)).status_code == 202


def test_nothing_is_taken_in_while_redis_is_away(
    learned_settings: ServiceSettings, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with running(learned_settings.model_copy(update={"redis_url": own_redis.url})) as service:
        own_redis.stop()
        before = [job.id for job in service.vault.jobs.list()]
        began = time.monotonic()
        refused = upload(service, "high", archive((8, 9), 4))
        assert time.monotonic() - began < 60
        assert (refused.status_code, refused.json()["code"]) == (503, "redis_unavailable")
        assert refused.headers["Retry-After"] == "5"
        assert [job.id for job in service.vault.jobs.list()] == before
        assert service.vault.objects.list("data") == []
        own_redis.start()
        response = upload(service, "high", archive((8, 9), 4))
        assert response.status_code == 202
        own_redis.stop()
        job = response.json()["job"]["id"]
        assert service.client.get(f"/v1/jobs/{job}").json()["state"] == "queued"
    said = [record for record in caplog.records if record.name.startswith("engram")]
    assert any(record.getMessage().startswith("redis_unavailable: Redis cannot be ") for record in said)
    assert [record for record in said if record.exc_info] == []


def test_more_uploads_than_there_is_room_for(learned_settings: ServiceSettings) -> None:
    changes = {"max_uploads": 1, "max_spool_bytes": 60_000, "slow_body_seconds": 3 * PATIENCE}
    with running(learned_settings.model_copy(update=changes)) as service:
        crowded = upload(service, "large", archive((8, 9), extra={"x/noise": os.urandom(60_000)}))
        assert (crowded.status_code, crowded.json()["code"]) == (503, "overloaded")
        assert crowded.headers["Retry-After"] == "1"

        def unfinished() -> Iterator[bytes]:
            yield b"--x\r\nContent-Disposition: form-data; name=name\r\n\r\nslow"
            wait_until(lambda: service.runtime.uploads.taken == 1)
            refused = upload(service, "second", archive((6, 7), 4))
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            yield b"\r\n--x--\r\n"

        media = {"Content-Type": "multipart/form-data; boundary=x"}
        assert service.client.post(TASKS, content=unfinished(), headers=media).status_code == 422
        assert upload(service, "third", archive((6, 7), 4)).status_code == 202


def test_no_room_is_told_at_submission(service: Service) -> None:
    create(service.vault, "narrow", budget=0.06)
    data: list[tuple[str, Any]] = [("name", (None, "x")), ("data", ("x", archive((8, 9), 4)))]
    assert service.client.post("/v1/models/narrow/tasks", files=data).status_code == 202
    create(service.vault, "full", budget={"dense1": 4, "dense2": 4})
    assert learn(service.vault, "first", (0, 1), "full", prune=False).state == "succeeded"
    response = service.client.post("/v1/models/full/tasks", files=data)
    assert (response.status_code, response.json()["code"]) == (409, "capacity_exhausted")
    service.client.patch("/v1/models/full", json={"budget": 2.0}).raise_for_status()
    assert service.client.post("/v1/models/full/tasks", files=data).status_code == 202


def test_tasks_are_listed_and_shown(service: Service) -> None:
    first = service.client.get(TASKS, params={"limit": 1}).json()
    assert first["tasks"] == [{"name": "low", "classes": ["digit-0", "digit-1"]}]
    rest = service.client.get(TASKS, params={"limit": 1, "after": first["next"]}).json()
    assert (rest["tasks"][0]["name"], rest["next"]) == ("mid", None)
    shown = service.client.get(f"{TASKS}/mid").json()
    assert (shown["version"], shown["classes"]) == (2, ["digit-2", "digit-3"])
    assert shown["reads"] == shown["report"]["details"].get("reads")
    assert shown["closure"] == shown["report"]["details"].get("closure")
    assert shown["report"]["unreadable"] == []
    assert shown["report"]["left_out"] == {"count": 0, "folders": [], "unlisted": 0}
    assert shown["report"]["constant"] == {}
    assert [sentence.partition(" rests on")[0] for sentence in shown["report"]["warnings"]] == [
        "the recall of 2 classes",
    ]
    assert shown["report"]["accuracy"]["kept"] > 0.5
    missing = service.client.get(f"{TASKS}/high")
    assert (missing.status_code, missing.json()["code"]) == (404, "unknown_task")


@pytest.fixture
def bounded(learned_settings: ServiceSettings) -> Iterator[Service]:
    with running(
        learned_settings.model_copy(update={"max_upload_bytes": 20_000, "max_request_bytes": 2000})
    ) as service:
        yield service


def test_an_upload_that_is_too_large(bounded: Service) -> None:
    announced = upload(bounded, "new", b"x" * 30_000)
    assert (announced.status_code, announced.json()["code"]) == (413, "upload_too_large")
    head = b'--b\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    unannounced = bounded.client.post(TASKS, content=iter([head, b"x" * 15_000, b"x" * 15_000]), headers=headers)
    assert (unannounced.status_code, unannounced.json()["code"]) == (413, "upload_too_large")
    assert stored(bounded) == []
    assert upload(bounded, "new", archive((8, 9), 20)).status_code == 202


def test_forms_that_are_none(reader: Service) -> None:
    for content in (b"", b"nonsense", b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\nno end'):
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        response = reader.client.post(TASKS, content=content, headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_multipart")
    unbound = reader.client.post(TASKS, content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert (unbound.status_code, unbound.json()["code"]) == (400, "invalid_multipart")
    twice = reader.client.post(TASKS, files=[("data", ("x", b"x")), ("data", ("x", b"x"))])
    assert (twice.status_code, twice.json()["code"]) == (400, "invalid_multipart")
    for name, value in (("name", "new"), ("options", "{}")):
        both: list[tuple[str, Any]] = [(name, (None, value))] * 2
        form: list[tuple[str, Any]] = [*both, ("name", (None, "new")), ("data", ("x", archive((8, 9), 4)))]
        double = reader.client.post(TASKS, files=form)
        assert (double.status_code, double.json()["code"]) == (422, "invalid_request")
    misspelt = reader.client.post(TASKS, files=[("option", (None, "{}")), ("name", (None, "new"))])
    assert (misspelt.status_code, misspelt.json()["code"]) == (422, "invalid_request")
    assert "'option'; known here: data, name, options" in misspelt.json()["detail"]
    other = reader.client.post(TASKS, content=b"x", headers={"Content-Type": "application/zip"})
    assert (other.status_code, other.json()["code"]) == (415, "unsupported_media_type")


class TestDataByAddress:
    """`data.uri` instead of an upload."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "given"
        folder.mkdir()
        (folder / "digits.zip").write_bytes(archive((8, 9), 4))
        (tmp_path / "secret.zip").write_bytes(archive((8, 9), 4))
        os.symlink(tmp_path / "secret.zip", folder / "link.zip")
        return folder

    @pytest.fixture
    def allowing(self, learned_settings: ServiceSettings, folder: Path) -> Iterator[Service]:
        prefixes = (f"file://{folder}", "s3://bucket/open/")
        with running(learned_settings.model_copy(update={"data_uri_prefixes": prefixes})) as service:
            yield service

    def ask(self, service: Service, uri: str, **more: object) -> httpx.Response:
        return service.client.post(TASKS, json={"name": "high", "data": {"uri": uri}, **more})

    def test_none_is_allowed_unless_set(self, service: Service, folder: Path) -> None:
        response = self.ask(service, f"file://{folder}/digits.zip")
        assert (response.status_code, response.json()["code"]) == (403, "data_uri_not_allowed")

    def test_what_is_allowed_becomes_a_job(self, allowing: Service, folder: Path) -> None:
        response = self.ask(allowing, f"file://{folder}/digits.zip", options=QUICK)
        assert response.status_code == 202
        job = allowing.vault.jobs.get(response.json()["job"]["id"])
        assert (job.data, job.uploaded) == (f"file://{folder}/digits.zip", False)
        assert allowing.vault.objects.list("data") == []

    @pytest.mark.parametrize(
        "uri",
        [
            "file://{folder}/../secret.zip",
            "file://{folder}/%2e%2e/secret.zip",
            "file://{folder}/link.zip",
            "file://{folder}-other/digits.zip",
            "file://elsewhere{folder}/digits.zip",
            "file:///etc/passwd",
            "/etc/passwd",
            "http://127.0.0.1/digits.zip",
            "s3://other/open/digits.zip",
            "s3://bucket/secret/digits.zip",
            "s3://bucket/open/../secret/digits.zip",
        ],
    )
    def test_the_rest_is_not(self, allowing: Service, folder: Path, uri: str) -> None:
        response = self.ask(allowing, uri.format(folder=folder))
        assert (response.status_code, response.json()["code"]) == (403, "data_uri_not_allowed")
        assert stored(allowing) == []

    def test_what_is_not_there_or_does_not_fit(self, allowing: Service, folder: Path) -> None:
        missing = self.ask(allowing, f"file://{folder}/none.zip")
        assert (missing.status_code, missing.json()["code"]) == (422, "data_not_found")
        (folder / "bad.zip").write_bytes(b"none")
        assert self.ask(allowing, f"file://{folder}/bad.zip").json()["code"] == "not_an_archive"
        unknown = allowing.client.post(TASKS, json={"name": "high", "data": {"url": "x"}})
        assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_request")
        none = allowing.client.post(TASKS, content=b"{", headers={"Content-Type": "application/json"})
        assert (none.status_code, none.json()["code"]) == (400, "invalid_json")
        assert stored(allowing) == []
