"""Tests of evaluations submitted over HTTP, whose refusals leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import ServiceSettings
from testing.data.digits import archive, png
from testing.data.models import learn, worker_settings
from testing.servers.service import Service, running
from worker.job_runner import JobRunner

PATH = "/v1/models/digits/evaluate"
IMAGES = archive((0, 1, 2, 8), 3)


def upload(
    service: Service, data: bytes | None = IMAGES, path: str = PATH, key: str | None = None, **fields: str
) -> httpx.Response:
    parts: list[tuple[str, Any]] = [(name, (None, value)) for name, value in fields.items()]
    if data is not None:
        parts.append(("data", ("data.zip", data, "application/zip")))
    headers = {} if key is None else {"Idempotency-Key": key}
    return service.client.post(path, files=parts or {"none": (None, "")}, headers=headers)


def work(service: Service) -> None:
    JobRunner(service.vault, worker_settings(service.vault)).work("digits")


def test_an_upload_becomes_a_job_with_figures(service: Service) -> None:
    response = upload(service, versions="1, 2")
    assert response.status_code == 202
    job = response.json()["job"]
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["model"], job["task"], job["state"]) == ("evaluate", "digits", "", "queued")
    assert service.vault.jobs.get(job["id"]).options == {"versions": [1, 2]}
    work(service)
    done = service.client.get(response.headers["Location"]).json()
    assert (done["state"], done["error"]) == ("succeeded", None)
    found = done["result"]["evaluation"]
    assert [(one["version"], one["images"], one["strangers"]["images"]) for one in found["versions"]] == [
        (1, 6, 6),
        (2, 9, 3),
    ]
    assert found["comparison"]["differences"] == len(found["comparison"]["listed"])
    assert service.vault.objects.list("data") == []
    assert service.client.get("/v1/models/digits").json()["version"] == 2
    assert service.client.get("/v1/jobs").json()["jobs"] == [done]


def test_its_answers_are_those_that_the_service_gives(service: Service) -> None:
    job = upload(service, archive((0, 1, 2, 3), 20)).json()["job"]
    work(service)
    evaluation = service.client.get(f"/v1/jobs/{job['id']}").json()["result"]["evaluation"]
    (figures,) = evaluation["versions"]
    images = [(digit, png(digit, number)) for digit in range(4) for number in range(20)]
    parts = [("image", ("x.png", data, "image/png")) for _, data in images]
    answers = service.client.post("/v1/models/digits/predict", files=parts).json()["predictions"]
    right = [answer["label"] == f"digit-{digit}" for (digit, _), answer in zip(images, answers, strict=True)]
    assert figures["version"] == 2
    assert figures["accuracy"] == sum(right) / 80
    assert figures["unknown"] == sum(answer["known"] is False for answer in answers)
    assert figures["routing"]["low"].get("low", 0) == sum(answer["task"] == "low" for answer in answers[:40])


@pytest.mark.parametrize(
    ("data", "fields", "status", "code"),
    [
        (None, {"versions": "1"}, 422, "invalid_request"),
        (IMAGES, {"versions": ""}, 422, "invalid_request"),
        (IMAGES, {"versions": "1,2,0"}, 422, "invalid_request"),
        (IMAGES, {"versions": "-1"}, 422, "invalid_request"),
        (IMAGES, {"versions": "2,2"}, 422, "invalid_request"),
        (IMAGES, {"versions": "123456789"}, 422, "invalid_request"),
        (IMAGES, {"task": ""}, 422, "invalid_request"),
        (IMAGES, {"name": "x"}, 422, "invalid_request"),
        (IMAGES, {"versions": "7"}, 404, "unknown_version"),
        (IMAGES, {"versions": "0"}, 409, "nothing_learned"),
        (IMAGES, {"task": "nowhere"}, 404, "unknown_task"),
        (IMAGES, {"versions": "1", "task": "mid"}, 404, "unknown_task"),
        (b"neither zip nor tar", {}, 422, "not_an_archive"),
        (archive((), 0, {"a.png": png(0, 0)}), {}, 422, "archive_bad_layout"),
        (archive((), 0, {"a/b.png": b"no"}), {}, 422, "not_an_image"),
        (archive((0,), 1, {"../x.png": b"x"}), {}, 422, "archive_unsafe_path"),
    ],
)
def test_what_is_refused_leaves_no_trace(
    reader: Service, data: bytes | None, fields: dict[str, str], status: int, code: str
) -> None:
    response = upload(reader, data, **fields)
    assert (response.status_code, response.json()["code"]) == (status, code)
    store = reader.vault.objects
    assert [path for folder in ("jobs", "data", "open", "recent") for path in store.list(folder)] == []


def test_there_has_to_be_such_a_model(reader: Service) -> None:
    assert upload(reader, path="/v1/models/none/evaluate").json()["code"] == "unknown_model"
    assert reader.client.post(PATH, content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415


def test_a_label_of_two_tasks_is_refused_at_once(service: Service) -> None:
    learn(service.vault, "again", (1, 7))
    refused = upload(service, versions="3")
    assert (refused.status_code, refused.json()["code"]) == (422, "ambiguous_label")
    assert upload(service, versions="3", task="again").status_code == 202
    assert upload(service, archive((), 0, {"low/digit-1/a.png": png(1, 0)}), versions="3").status_code == 202


def test_images_at_an_address(learned_settings: ServiceSettings, tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(IMAGES)
    changes = {"data_uri_prefixes": (f"file://{tmp_path}/",)}
    with running(learned_settings.model_copy(update=changes)) as service:

        def ask(**body: Any) -> httpx.Response:
            return service.client.post(PATH, json={"data": {"uri": f"file://{tmp_path}/images.zip"}, **body})

        job = ask(versions=[2], task="low").json()["job"]
        assert (job["kind"], job["task"]) == ("evaluate", "low")
        work(service)
        assert service.client.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"
        assert (tmp_path / "images.zip").exists()
        assert ask(data={"uri": f"file://{tmp_path}/none.zip"}).json()["code"] == "data_not_found"
        assert ask(data={"uri": "file:///etc/passwd"}).json()["code"] == "data_uri_not_allowed"
        assert ask(versions=[]).json()["code"] == "invalid_request"
        assert ask(versions=["2"]).status_code in (202, 422)


def test_the_same_request_under_a_key_is_one_job(service: Service) -> None:
    first, again = (upload(service, key="k", versions="2") for _ in range(2))
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert upload(service, key="k", versions="1").json()["code"] == "idempotency_key_reused"
    assert len(service.vault.jobs.list()) == 1
    assert len(service.vault.objects.list("data")) == 1


def test_it_keeps_no_name_from_a_task(service: Service) -> None:
    assert upload(service, task="low").status_code == 202
    parts: list[tuple[str, Any]] = [("name", (None, "high")), ("data", ("data.zip", archive((8, 9), 4)))]
    assert service.client.post("/v1/models/digits/tasks", files=parts).status_code == 202
    (waiting, evaluation) = service.client.get("/v1/jobs").json()["jobs"]
    assert (waiting["kind"], evaluation["kind"]) == ("learn", "evaluate")
    assert service.client.post(f"/v1/jobs/{evaluation['id']}/cancel").json()["state"] == "cancelled"


def test_its_uploads_are_limited_as_those_of_tasks(learned_settings: ServiceSettings) -> None:
    changes = {"max_upload_bytes": 20_000, "max_request_bytes": 2_000, "max_document_bytes": 2_000}
    with running(learned_settings.model_copy(update=changes)) as service:
        refused = upload(service, b"x" * 30_000)
        assert (refused.status_code, refused.json()["code"]) == (413, "upload_too_large")
        assert len(IMAGES) > 2_000
        assert upload(service).status_code == 202
