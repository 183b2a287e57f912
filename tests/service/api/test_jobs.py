"""Tests of jobs over HTTP: shown, followed, cancelled."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from service.settings import ServiceSettings
from testing.data.models import create, submit, worker_settings
from testing.servers.redis import RedisServer
from testing.servers.service import Service, running
from worker.attempt import run_attempt


@dataclass
class Event:
    id: str
    kind: str
    data: dict[str, object]


def follow(
    service: Service, job: str, after: str | None = None, on_comment: Callable[[int], None] = lambda comments: None
) -> tuple[list[Event], list[str]]:
    """All events of a job's stream up to its end, and its comments; `on_comment` gets their number at each."""
    headers = {"Last-Event-ID": after} if after else {}
    events, comments, fields = [], [], dict[str, str]()
    with service.client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith(":"):
                comments.append(line)
                on_comment(len(comments))
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                events.append(Event(fields["id"], fields["event"], json.loads(fields["data"])))
                fields = {}
    return events, comments


@pytest.fixture
def waiting(empty: Service) -> str:
    """A job that nobody works on yet."""
    create(empty.vault)
    return submit(empty.vault, "low", (0, 1)).id


def work(service: Service, job: str) -> None:
    token = service.vault.jobs.start_attempt(job)
    record = service.vault.jobs.get(job)
    run_attempt(service.vault, record, token, lambda: False, worker_settings(service.vault))


def test_events_come_as_they_happen_and_end_with_the_job(empty: Service, waiting: str) -> None:
    worker = threading.Timer(0.3, work, (empty, waiting))
    worker.start()
    events, _ = follow(empty, waiting)
    worker.join()
    assert events[0].data["state"] == "queued"
    assert (events[-1].data["state"], events[-1].kind) == ("succeeded", "state")
    phases = [event.data["phase"] for event in events if event.kind == "progress"]
    assert phases[0] == "loading"
    assert {"training", "recognising", "verifying", "publishing"} <= set(phases)
    fractions = [event.data["fraction"] for event in events if event.kind == "progress"]
    assert fractions == sorted(fractions, key=lambda share: float(str(share)))
    result = events[-1].data["result"]
    assert isinstance(result, dict)
    assert result["version"] == empty.client.get("/v1/models/digits").json()["version"] == 1


def test_a_stream_is_resumed_after_the_last_event_seen(empty: Service, waiting: str) -> None:
    work(empty, waiting)
    events, _ = follow(empty, waiting)
    rest, _ = follow(empty, waiting, events[2].id)
    assert rest == events[3:]


def test_the_record_ends_a_stream_that_redis_has_lost(settings: ServiceSettings, own_redis: RedisServer) -> None:
    with running(settings.model_copy(update={"redis_url": own_redis.url})) as service:
        create(service.vault)
        job = submit(service.vault, "low", (0, 1)).id
        work(service, job)
        ended = service.client.get(f"/v1/jobs/{job}").json()
        assert ended["finished_at"] >= ended["created_at"]
        whole, _ = follow(service, job)
        own_redis.stop()
        own_redis.start()
        events, _ = follow(service, job)
        assert events == whole[-1:]
        assert events[0].data["state"] == "succeeded"


def test_a_client_that_has_the_last_event_is_told_to_stop(settings: ServiceSettings, own_redis: RedisServer) -> None:
    with running(settings.model_copy(update={"redis_url": own_redis.url})) as service:
        create(service.vault)
        job, other = (submit(service.vault, task, (0, 1)).id for task in ("low", "mid"))
        service.client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
        events, _ = follow(service, job)
        again = {"Last-Event-ID": events[-1].id}
        for forget in (False, True):
            if forget:
                own_redis.stop()
                own_redis.start()
            response = service.client.get(f"/v1/jobs/{job}/events", headers=again)
            assert (response.status_code, response.content) == (204, b"")
        # The id of another job's last event does not end a job that goes on.
        cancel = threading.Timer(0.3, service.vault.jobs.request_cancel, (other,))
        cancel.start()
        rest, _ = follow(service, other, events[-1].id)
        cancel.join()
        assert rest[-1].data["state"] == "cancelled"


def test_pings_keep_a_silent_stream_open(settings: ServiceSettings) -> None:
    with running(settings.model_copy(update={"ping_seconds": 0.2})) as service:
        create(service.vault)
        job = submit(service.vault, "low", (0, 1)).id

        def cancel(comments: int) -> None:
            if comments == 2:
                service.vault.jobs.request_cancel(job)

        events, _ = follow(service, job, on_comment=cancel)
    assert events[-1].data["state"] == "cancelled"


def test_a_waiting_job_is_cancelled_at_once_and_only_once(empty: Service, waiting: str) -> None:
    first = empty.client.post(f"/v1/jobs/{waiting}/cancel")
    assert (first.status_code, first.json()["state"], first.json()["error"]["code"]) == (200, "cancelled", "cancelled")
    assert empty.client.post(f"/v1/jobs/{waiting}/cancel").status_code == 200
    described = empty.client.get("/openapi.json").json()["paths"]["/v1/jobs/{job}/cancel"]["post"]["responses"]
    assert {"200", "202", "409"} <= set(described)
    assert empty.vault.objects.list("data") == []
    done = submit(empty.vault, "mid", (2, 3)).id
    work(empty, done)
    shown = empty.client.get(f"/v1/jobs/{done}").json()
    assert (shown["phase"], shown["progress"]) == (None, {"fraction": 1.0})
    late = empty.client.post(f"/v1/jobs/{done}/cancel")
    assert (late.status_code, late.json()["code"]) == (409, "job_over")


def test_jobs_are_listed_newest_first_by_pages(empty: Service) -> None:
    for model in ("one", "two"):
        create(empty.vault, model)
    ids = [submit(empty.vault, f"t{n}", (0, 1), ("one", "two")[n % 2]).id for n in range(5)]
    found: list[str] = []
    after = None
    while True:
        params = {"limit": 2} | ({"after": after} if after else {})
        page = empty.client.get("/v1/jobs", params=params).json()
        found.extend(job["id"] for job in page["jobs"])
        after = page["next"]
        if after is None:
            break
    assert found == ids[::-1]
    of_two = empty.client.get("/v1/jobs", params={"model": "two"}).json()["jobs"]
    assert [job["task"] for job in of_two] == ["t3", "t1"]


def test_a_running_job_shows_its_progress(empty: Service, waiting: str) -> None:
    with_lease = empty.vault.leases.acquire("digits", "somebody", waiting)
    assert with_lease is not None
    empty.vault.jobs.start_attempt(waiting)
    empty.vault.jobs.report(waiting, {"phase": "training", "fraction": 0.25, "epoch": 3})
    shown = empty.client.get(f"/v1/jobs/{waiting}").json()
    assert (shown["state"], shown["phase"], shown["attempts"]) == ("running", "training", 1)
    assert shown["progress"] == {"fraction": 0.25, "epoch": 3}
    with_lease.release()
    assert empty.client.get(f"/v1/jobs/{waiting}").json()["state"] == "queued"
