"""Tests of requests made again under their idempotency key."""

from __future__ import annotations

import json
import shutil
from typing import Any

import httpx
import pytest

from service.api.schemas import ModelRequest
from service.settings import ServiceSettings
from testing.data.digits import QUICK, SMALL_MODEL, archive
from testing.processes.races import race
from testing.servers.redis import RedisServer
from testing.servers.service import Service, running

DATA = archive((8, 9), 4)
"""Made once, since a zip tells when it was made."""

TASKS = "/v1/models/digits/tasks"
ACTIVATE = "/v1/models/digits/versions/{}/activate"


def submit(
    service: Service, key: str | None = "k", name: str = "high", data: bytes = DATA, path: str = TASKS
) -> httpx.Response:
    form = {"name": name, "options": json.dumps(QUICK)}
    headers = {} if key is None else {"Idempotency-Key": key}
    files = {"data": ("data.zip", data)}
    return service.client.post(path, data=form, files=files, headers=headers)


def same(first: httpx.Response, again: httpx.Response) -> bool:
    """Whether one answer is the other, given again."""
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    names = ("Location", "Content-Type", "Content-Length")
    return (first.status_code, first.content, [first.headers.get(name) for name in names]) == (
        again.status_code,
        again.content,
        [again.headers.get(name) for name in names],
    )


def names(service: Service) -> list[str]:
    """What stands for each key in the store."""
    return sorted({path.split("/")[1] for path in service.vault.objects.list("idempotency")})


def forget_answer(service: Service) -> str:
    """As if the service had been killed before it could answer; what stands for its only key."""
    [name] = names(service)
    service.vault.objects.delete(f"idempotency/{name}/answer.json")
    return name


def test_a_task_submitted_again_is_one_job_and_one_answer(service: Service) -> None:
    first = submit(service)
    assert first.status_code == 202
    job = first.json()["job"]["id"]
    service.client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
    again = submit(service)  # with another boundary, and the job has moved on
    assert first.request.headers["Content-Type"] != again.request.headers["Content-Type"]
    assert same(first, again)
    assert [job["id"] for job in service.client.get("/v1/jobs").json()["jobs"]] == [job]
    assert service.vault.objects.list("data") == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"data": archive((8, 9), 5)},
    ],
)
def test_another_body_under_the_same_key_is_refused(service: Service, change: dict[str, Any]) -> None:
    assert submit(service).status_code == 202
    other = submit(service, **change)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(service.client.get("/v1/jobs").json()["jobs"]) == 1


def test_another_query_under_the_same_key_is_refused(service: Service) -> None:
    key = {"Idempotency-Key": "k"}
    assert service.client.post(ACTIVATE.format(1), headers=key).status_code == 201
    other = service.client.post(f"{ACTIVATE.format(1)}?allow_empty=true", headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_a_key_of_one_address_is_refused_at_another(service: Service) -> None:
    assert submit(service).status_code == 202
    model = service.client.post("/v1/models", json={"name": "new", **SMALL_MODEL}, headers={"Idempotency-Key": "k"})
    assert (model.status_code, model.json()["code"]) == (422, "idempotency_key_reused")
    assert service.client.get("/v1/models/new").status_code == 404


def test_a_model_made_again_is_answered_as_the_first_time(service: Service) -> None:
    def create(**changes: Any) -> httpx.Response:
        body = {"name": "new", **SMALL_MODEL, **changes}
        return service.client.post("/v1/models", json=body, headers={"Idempotency-Key": "k"})

    first = create()
    assert first.status_code == 201
    service.client.patch("/v1/models/new", json={"budget": 20.0}).raise_for_status()
    assert same(first, create())
    assert create(width=0.5).json()["code"] == "idempotency_key_reused"


def test_only_the_request_that_made_a_model_is_told_so(service: Service) -> None:
    def create(key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return service.client.post("/v1/models", json={"name": "new", **SMALL_MODEL}, headers=headers)

    first = create("maker")
    assert first.status_code == 201
    forget_answer(service)
    assert (create().status_code, create("another").status_code) == (200, 200)
    again = create("maker")
    assert (again.status_code, again.json()) == (201, first.json())
    assert same(again, create("maker"))


def test_a_request_killed_half_way_through_a_model_has_made_it_when_it_is_done(service: Service) -> None:
    definition = ModelRequest.model_validate({"name": "new", **SMALL_MODEL}).definition()
    service.vault.models.create("new", definition.model_dump(mode="json"))
    body = {"name": "new", **SMALL_MODEL}
    made = service.client.post("/v1/models", json=body, headers={"Idempotency-Key": "k"})
    assert (made.status_code, made.json()["version"]) == (201, 0)
    forget_answer(service)
    again = service.client.post("/v1/models", json=body, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (201, made.json())


def test_of_many_who_ask_for_a_model_at_once_one_has_made_it(service: Service) -> None:
    assert service.client.post("/v1/models", json={}).status_code == 422  # so that the route is made

    def create(number: int) -> httpx.Response:
        headers = {"Idempotency-Key": f"k{number}"} if number % 2 else {}
        return service.client.post("/v1/models", json={"name": "new", **SMALL_MODEL}, headers=headers)

    answers = race(8, create)
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.content for answer in answers}) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä", "tab\tkey"])
def test_what_is_no_key_is_refused(reader: Service, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    for path in (TASKS, "/v1/models", ACTIVATE.format(1)):
        body = None if path == ACTIVATE.format(1) else {"name": "x", **SMALL_MODEL}
        response = reader.client.post(path, json=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_idempotency_key"), path
    assert names(reader) == []


def test_two_keys_are_refused(reader: Service) -> None:
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    response = reader.client.post(ACTIVATE.format(1), headers=twice)
    assert response.json()["code"] == "invalid_idempotency_key"


def test_every_visible_character_makes_a_key(service: Service) -> None:
    key = "".join(map(chr, range(0x21, 0x7F))) + "x" * 161
    assert len(key) == 255
    assert same(submit(service, key), submit(service, key))


def test_a_request_killed_before_its_answer_is_finished_by_the_next(service: Service) -> None:
    first = submit(service)
    name = forget_answer(service)
    lease = service.vault.leases.acquire(f"{name}:idempotency", "a service that was killed")
    assert lease is not None
    busy = submit(service)
    assert (busy.status_code, busy.json()["code"]) == (409, "idempotency_in_progress")
    assert busy.headers["Retry-After"] == "1"
    assert submit(service, name="other").json()["code"] == "idempotency_key_reused"
    lease.release()
    again = submit(service)
    assert (again.status_code, again.json()) == (202, first.json())
    assert same(again, submit(service))
    assert len(service.vault.objects.list("data")) == 1


def test_many_at_once_are_one_job(service: Service) -> None:
    answers = race(8, lambda _: submit(service))
    assert {answer.status_code for answer in answers} <= {202, 409}
    accepted = {answer.headers["Location"] for answer in answers if answer.status_code == 202}
    jobs = service.client.get("/v1/jobs").json()["jobs"]
    assert accepted == {f"/v1/jobs/{job['id']}" for job in jobs}
    assert len(jobs) == len(service.vault.objects.list("data")) == 1


def test_without_redis_two_replicas_make_one_version(learned_settings: ServiceSettings, own_redis: RedisServer) -> None:
    settings = learned_settings.model_copy(update={"redis_url": own_redis.url})
    with running(settings) as one, running(settings) as other:
        for each in (one, other):  # the framework makes a route when it is first asked for, and not in two threads
            assert each.client.post(ACTIVATE.format(9)).status_code == 404
        own_redis.stop()

        def activate(number: int) -> httpx.Response:
            return (one, other)[number % 2].client.post(ACTIVATE.format(1), headers={"Idempotency-Key": "back"})

        answers = race(4, activate)
        assert {(answer.status_code, answer.json()["version"]) for answer in answers} == {(201, 3)}
        versions = one.client.get("/v1/models/digits/versions").json()["versions"]
        assert [version["version"] for version in versions] == [3, 2, 1, 0]


def test_a_job_made_before_redis_went_away_is_made_once(
    learned_settings: ServiceSettings, own_redis: RedisServer
) -> None:
    with running(learned_settings.model_copy(update={"redis_url": own_redis.url})) as service:
        first = submit(service)
        own_redis.stop()
        assert submit(service).status_code == 503
        own_redis.start()
        assert same(first, submit(service))
        assert len(service.vault.jobs.list()) == len(service.vault.objects.list("data")) == 1


def test_losing_all_of_redis_loses_no_key(service: Service) -> None:
    first = submit(service)
    service.vault.redis.flushall()
    assert same(first, submit(service))


def test_a_rollback_killed_before_its_answer_is_not_done_twice(service: Service) -> None:
    def activate(version: int, key: str) -> httpx.Response:
        return service.client.post(ACTIVATE.format(version), headers={"Idempotency-Key": key})

    first = activate(1, "back")
    assert (first.status_code, first.json()["version"]) == (201, 3)
    forget_answer(service)
    assert activate(2, "forth").json()["version"] == 4
    again = activate(1, "back")
    assert (again.status_code, again.json()) == (201, first.json() | {"status": "past"})
    versions = service.client.get("/v1/models/digits/versions").json()["versions"]
    assert [version["version"] for version in versions] == [4, 3, 2, 1, 0]


def test_a_refusal_stands_and_leaves_no_job(service: Service) -> None:
    first = submit(service, name="low")
    assert (first.status_code, first.json()["code"]) == (409, "task_exists")
    service.client.post(f"{ACTIVATE.format(0)}?allow_empty=true").raise_for_status()
    assert same(first, submit(service, name="low"))
    assert submit(service, "another", name="low").status_code == 202


def test_a_failure_of_the_storage_is_no_answer(service: Service) -> None:
    store = service.vault.settings.store_folder
    assert store is not None
    shutil.rmtree(store / "data", ignore_errors=True)
    (store / "data").write_bytes(b"a file where uploads go")
    first = submit(service)
    assert (first.status_code, first.json()["code"]) == (503, "store_unavailable")
    (store / "data").unlink()
    assert submit(service).status_code == 202


def test_without_a_key_nothing_is_kept(service: Service) -> None:
    assert submit(service, None).status_code == 202
    assert submit(service, None).json()["code"] == "task_exists"
    assert names(service) == []
