"""Tests of what is sent again, under which key, and when that ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engram_client import (
    AsyncClient,
    Client,
    JobUpdate,
    LearningJob,
    LimitReached,
    Patience,
    ServiceBusy,
    StateRefused,
    UnexpectedAnswer,
    UnknownName,
    Unreachable,
)
from engram_client.records import JobRecord

from testing.servers.scripted import PreparedAnswer, ScriptedServer, scripted_server

JOB = {"id": "j", "model": "m", "task": "t", "state": "queued", "created_at": "now"}
MODEL = {"name": "m", "version": 0, "backbone": "cnn", "tasks": [], "created_at": "now"}
BROKEN = PreparedAnswer()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[Client]:
    with Client(server.url, "secret", patience=Patience(5, 0)) as client:
        yield client


def ok(document: Any) -> PreparedAnswer:
    return PreparedAnswer(200, json.dumps(document).encode())


def refusal(status: int, code: str, retry_after: int | None = None) -> PreparedAnswer:
    problem = {"code": code, "detail": f"It is {code}.", "status": status, "request_id": "r1"}
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return PreparedAnswer(status, json.dumps(problem).encode(), headers)


def events(*found: tuple[str, dict[str, Any]], whole: bool = True) -> PreparedAnswer:
    text = "".join(f": ping\r\n\r\nid: {name}\r\nevent: x\r\ndata: {json.dumps(data)}\r\n\r\n" for name, data in found)
    return PreparedAnswer(200, text.encode(), {"Content-Type": "text/event-stream"}, whole)


def test_what_changes_something_is_made_again_under_its_key(server: ScriptedServer, client: Client) -> None:
    moment = [refusal(503, "overloaded", 0), PreparedAnswer(502, b"<html>"), refusal(409, "idempotency_in_progress", 0)]
    server.answers = [BROKEN, *moment, ok(MODEL)]
    assert client.create_model("m", backbone="cnn").name == "m"
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert len(server.requests) == 5
    assert len(keys) == 1
    assert {request.body for request in server.requests} == {b'{"name": "m", "backbone": "cnn"}'}
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer secret"}
    server.answers = [refusal(409, "model_exists")]
    with pytest.raises(StateRefused, match="model_exists"):
        client.create_model("m")
    assert server.requests[-1].headers["idempotency-key"] not in keys


def test_an_upload_is_read_anew_and_is_the_same(server: ScriptedServer, client: Client, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"image")
    server.answers = [BROKEN, ok({"job": JOB})]
    sent: list[int] = []
    client.learn("m", "t/u", tmp_path, options={"epochs": 1}, on_sent=lambda done, _: sent.append(done))
    first, second = server.requests
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.headers["transfer-encoding"] == "chunked"
    assert sent[-1] == len(second.body)
    assert b"image" in first.body


def test_an_archive_is_sent_with_its_length_and_an_address_as_json(
    server: ScriptedServer, client: Client, tmp_path: Path
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"PK")
    server.answers = [ok({"job": JOB})] * 2
    client.learn("m", "t", str(archive), idempotency_key="mine")
    client.learn("m", "t", "s3://bucket/a.zip")
    first, second = server.requests
    assert int(first.headers["content-length"]) == len(first.body)
    assert first.headers["idempotency-key"] == "mine"
    assert json.loads(second.body) == {"name": "t", "data": {"uri": "s3://bucket/a.zip"}, "options": {}}
    with pytest.raises(FileNotFoundError):
        client.learn("m", "t", tmp_path / "nowhere")


def test_a_wait_longer_than_the_patience_is_no_wait(server: ScriptedServer, client: Client) -> None:
    server.answers = [refusal(429, "quota_exceeded", 3600)]
    with pytest.raises(LimitReached, match=r"It is quota_exceeded\. \(quota_exceeded\)") as caught:
        client.models()
    assert (caught.value.retry_after, caught.value.request_id, caught.value.status) == (3600, "r1", 429)
    with Client(server.url, patience=Patience(0, 0)) as hasty:
        server.answers = [refusal(503, "overloaded", 0), BROKEN]
        with pytest.raises(ServiceBusy):
            hasty.models()
        with pytest.raises(Unreachable, match="gives no answer"):
            hasty.models()
    assert len(server.requests) == 3


def test_a_wait_is_told(server: ScriptedServer) -> None:
    told: list[tuple[float, str]] = []
    with Client(server.url, patience=Patience(5, 0, lambda seconds, why: told.append((seconds, why)))) as client:
        server.answers = [refusal(429, "rate_limited", 0), BROKEN, ok({"models": [], "next": None})]
        assert client.models() == []
    (limit, why), (pause, broken) = told
    assert (limit, why) == (0, "It is rate_limited. (rate_limited)")
    assert pause > 0
    assert "gives no answer" in broken


def test_what_lasts_until_somebody_installs_something_is_told_at_once(server: ScriptedServer, client: Client) -> None:
    server.answers = [refusal(503, "architecture_unavailable", 5)]
    with pytest.raises(ServiceBusy, match="architecture_unavailable"):
        client.model("m")
    assert len(server.requests) == 1


def test_what_is_gone_after_a_broken_deletion_is_deleted(server: ScriptedServer, client: Client) -> None:
    server.answers = [BROKEN, refusal(404, "unknown_model"), refusal(404, "unknown_model")]
    client.delete_model("m")
    with pytest.raises(UnknownName):
        client.delete_model("m")


def test_nobody_at_the_address_and_somebody_else(server: ScriptedServer, client: Client) -> None:
    with Client("http://127.0.0.1:1", patience=Patience(60, 0)) as nobody, pytest.raises(Unreachable, match="reached"):
        nobody.health()
    server.answers = [PreparedAnswer(200, b"<html>"), PreparedAnswer(404, b"<html>"), ok(["x"])]
    for _ in range(3):
        with pytest.raises(UnexpectedAnswer):
            client.models()


def test_names_are_quoted_and_lists_are_whole(server: ScriptedServer) -> None:
    entry = {"name": "n", "classes": ["a"]}
    server.answers = [ok({"tasks": [entry], "next": "c=/"}), ok({"tasks": [entry], "next": None})]
    with Client(f"{server.url}/below/") as client:
        assert len(client.tasks("a/b c?")) == 2
    first, second = (request.path for request in server.requests)
    assert first == "/below/v1/models/a%2Fb%20c%3F/tasks?limit=200"
    assert second.endswith("after=c%3D%2F")
    assert "authorization" not in server.requests[0].headers


def test_a_stream_that_breaks_is_taken_up(server: ScriptedServer, client: Client) -> None:
    running, end = {"state": "running"}, {"state": "succeeded", "result": {"version": 3}}
    server.answers = [
        events(("1", {"state": "queued"}), ("2", running), whole=False),
        BROKEN,
        events(("3", {"phase": "training", "fraction": 0.5}), ("end", end)),
        ok({**JOB, **end}),
    ]
    job = LearningJob(client, JobRecord.read(JOB))
    assert [(one.state, one.phase) for one in job.follow()] == [
        ("queued", None),
        ("running", None),
        (None, "training"),
        ("succeeded", None),
    ]
    assert [request.headers.get("last-event-id") for request in server.requests[:3]] == [None, "2", "2"]
    assert job.record.version == 3


def test_a_job_without_a_stream_is_asked_for(
    server: ScriptedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engram_client.events.POLL_SECONDS", 0.01)
    busy = {**JOB, "state": "running", "phase": "training", "progress": {"fraction": 0.25}}
    failed = {**JOB, "state": "failed", "error": {"code": "too_few_images", "detail": "Few."}}
    server.answers = [refusal(503, "overloaded", 0), ok(busy), ok(busy), ok(failed), ok(failed)]

    async def follow() -> list[JobUpdate]:
        async with AsyncClient(server.url) as asking:
            server.answers.insert(0, ok(JOB))
            job = await asking.job("j")
            return [update async for update in job.follow()]

    updates = asyncio.run(follow())
    assert [(one.state, one.fraction) for one in updates] == [("running", 0.25), ("failed", None)]
    assert updates[-1].error is not None


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Client(url)
    with pytest.raises(ValueError, match="no password") as caught:
        Client("http://me:secret@localhost")
    assert "secret" not in str(caught.value)


def test_address_and_key_come_from_the_environment(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_URL", server.url)
    monkeypatch.setenv("ENGRAM_API_KEY", "from-there\n")
    server.answers = [ok({"models": [], "next": None})]
    with Client() as client:
        client.models()
        assert "from-there" not in repr(client) + repr(client.settings)
    assert server.requests[0].headers["authorization"] == "Bearer from-there"
    with pytest.raises(ValueError, match="characters that no key has") as caught:
        Client(key="a b")
    assert "a b" not in str(caught.value)
