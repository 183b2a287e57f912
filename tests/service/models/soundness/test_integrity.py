"""Tests of a service over a store in which something is damaged or missing."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.models import live
from service.models.soundness import integrity
from service.settings import ServiceSettings
from testing.data.digits import SMALL_MODEL, png
from testing.data.models import MODEL, learn
from testing.servers.service import PATIENCE, Service, running, wait_until
from vault.storage.object_store import ObjectStore

PREDICT = f"/v1/models/{MODEL}/predict"
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def store(learned_settings: ServiceSettings) -> Path:
    """The folder of a store whose model is at version 2, the task `mid`."""
    assert learned_settings.store_folder is not None
    return learned_settings.store_folder


def head(store: Path) -> Path:
    """The newest commit's record."""
    return max(store.glob(f"models/{MODEL}/log/*/*.json"))


def version(service: Service) -> int:
    return int(service.client.post(PREDICT, content=png(0, 100), headers=PNG).raise_for_status().json()["version"])


def first_problem(service: Service) -> dict[str, Any]:
    """The first problem that the model's GET shows."""
    (problem,) = service.client.get(f"/v1/models/{MODEL}").raise_for_status().json()["problems"]
    assert isinstance(problem, dict)
    return problem


def flip(path: Path) -> bytes:
    """Flip one bit in the middle of a file; what it held."""
    whole = path.read_bytes()
    harmed = bytearray(whole)
    harmed[len(whole) // 2] ^= 4
    path.write_bytes(harmed)
    return whole


@pytest.mark.parametrize("harm", ["flipped", "deleted"])
def test_a_service_that_starts_with_a_damaged_head_serves_the_version_before(
    learned_settings: ServiceSettings, store: Path, harm: str
) -> None:
    with running(learned_settings) as service:
        commit = service.vault.log.head(MODEL)
        assert commit is not None
    blob = store / "blobs" / commit.engrams[-1]
    whole = flip(blob)
    if harm == "deleted":
        blob.unlink()
    with running(learned_settings) as service:
        wait_until(lambda: service.client.get("/readyz").status_code == 200)
        assert version(service) == 1
        problem = first_problem(service)
        assert problem["code"] == ("damaged" if harm == "flipped" else "not_found")
        assert (problem["version"], problem["object"]) == (2, f"blobs/{blob.name}")
        assert blob.name in problem["detail"]
        assert "engram_troubled_models 1.0" in service.client.get("/metrics").text
        blob.write_bytes(whole)
        wait_until(lambda: version(service) == 2)
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] == [])
        assert "engram_troubled_models 0.0" in service.client.get("/metrics").text


@pytest.mark.parametrize("harm", ["flipped", "deleted"])
def test_a_version_that_cannot_be_learned_on_answers_and_says_so(
    learned_settings: ServiceSettings, store: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "_RETRY_SECONDS", 0.2)
    kept = json.loads(head(store).read_text())["kept"]
    assert len(kept) == 7, "the totals, and three of each task"
    blob = store / "blobs" / kept[0]
    whole = flip(blob)
    if harm == "deleted":
        blob.unlink()
    with running(learned_settings) as service:
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] != [])
        problem = first_problem(service)
        assert problem["code"] == ("damaged" if harm == "flipped" else "not_found")
        assert (problem["version"], problem["object"]) == (2, f"blobs/{blob.name}")
        assert "cannot be learned on" in problem["detail"]
        assert version(service) == 2
        assert service.client.get("/readyz").status_code == 200
        assert "engram_troubled_models 1.0" in service.client.get("/metrics").text
        blob.write_bytes(whole)
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] == [])
        assert "engram_troubled_models 0.0" in service.client.get("/metrics").text


def test_what_waits_is_whole_or_it_is_said(
    learned_settings: ServiceSettings, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "_RETRY_SECONDS", 0.2)
    with running(learned_settings) as service:
        before = json.loads(head(store).read_text())
        service.client.patch(f"/v1/models/{MODEL}", json={"publish": "manual"}).raise_for_status()
        learn(service.vault, "high", (8, 9))
        candidate = json.loads(head(store).read_text())
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["candidates"] == [4])
    for part in ("kept", "engrams"):
        blob = store / "blobs" / next(sha for sha in candidate[part] if sha not in before[part])
        whole = flip(blob)
        with running(learned_settings) as service:
            wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] != [])
            problem = first_problem(service)
            assert (problem["version"], problem["object"]) == (4, f"blobs/{blob.name}")
            assert "waits to be activated" in problem["detail"]
            assert version(service) == 3
            assert "engram_troubled_models 1.0" in service.client.get("/metrics").text
            if part == "kept":
                blob.write_bytes(whole)
            else:
                service.client.post(f"/v1/models/{MODEL}/versions/4/reject").raise_for_status()
            wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] == [])


def test_what_learning_needs_is_read_once_and_again_after_a_day(
    learned_settings: ServiceSettings, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "_PASS_SECONDS", 0.01)
    read: list[str] = []
    original = ObjectStore.get_blob

    def get_blob(self: ObjectStore, sha: str) -> bytes:
        read.append(sha)
        return original(self, sha)

    monkeypatch.setattr(ObjectStore, "get_blob", get_blob)
    kept = json.loads(head(store).read_text())["kept"]
    with running(learned_settings) as service:
        wait_until(lambda: set(kept) <= set(read))
        learn(service.vault, "high", (8, 9))
        wait_until(lambda: version(service) == 3)
        time.sleep(0.3)
        needed = {kept[0], kept[1], kept[3]}  # the totals, the first task's sums, its detector's totals
        counts = {sha: read.count(sha) for sha in kept}
        assert all(counts[sha] == 2 for sha in needed), "one by the service, one by who learned"
        assert all(counts[sha] == 1 for sha in {kept[2], kept[4], kept[5]}), "which learning does not need"
        flip(store / "blobs" / kept[1])
        time.sleep(0.3)
        assert service.client.get(f"/v1/models/{MODEL}").json()["problems"] == []
        monkeypatch.setattr(integrity, "_AGAIN_SECONDS", 0.1)
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] != [])
        assert first_problem(service)["object"] == f"blobs/{kept[1]}"


def test_a_damaged_commit_leaves_the_version_before_and_may_be_overruled(
    learned_settings: ServiceSettings, store: Path
) -> None:
    record = head(store)
    flip(record)
    with running(learned_settings) as service:
        wait_until(lambda: service.client.get("/readyz").status_code == 200)
        assert version(service) == 1
        problem = first_problem(service)
        assert (problem["code"], problem["object"]) == ("damaged", str(record.relative_to(store)))
        assert service.client.get("/v1/models").json()["models"][0]["version"] == 1
        listed = service.client.get(f"/v1/models/{MODEL}/versions").json()["versions"]
        assert [one["version"] for one in listed] == [1, 0]
        refused = service.client.patch(f"/v1/models/{MODEL}", json={"budget": 20.0})
        assert (refused.status_code, refused.json()["code"]) == (500, "damaged")

        done = service.client.post(f"/v1/models/{MODEL}/versions/1/activate")
        assert (done.status_code, done.json()["version"], done.json()["parent"]) == (201, 3, 2)
        wait_until(lambda: version(service) == 3)
        # It is lost as an older version, which is no emergency.
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] != [])
        problem = first_problem(service)
        assert "neither asked for nor activated" in problem["detail"]
        assert (problem["version"], problem["object"]) == (2, str(record.relative_to(store)))
        assert "engram_troubled_models 0.0" in service.client.get("/metrics").text
        learn(service.vault, "high", (8, 9))
        wait_until(lambda: version(service) == 4)


@pytest.mark.parametrize("harm", ["flipped", "deleted"])
def test_an_older_commit_that_is_harmed_is_named_and_the_others_are_served(
    learned_settings: ServiceSettings, store: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "_RETRY_SECONDS", 0.2)
    record = head(store).with_name("00000001.json")
    name = str(record.relative_to(store))
    whole = flip(record)
    if harm == "deleted":
        record.unlink()
    code = "damaged" if harm == "flipped" else "not_found"
    with running(learned_settings) as service:
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] != [])
        problem = first_problem(service)
        assert (problem["code"], problem["version"], problem["object"]) == (code, 1, name)
        assert "neither asked for nor activated" in problem["detail"]
        assert version(service) == 2
        assert "engram_troubled_models 0.0" in service.client.get("/metrics").text

        versions = f"/v1/models/{MODEL}/versions"
        for method, path in (
            ("POST", f"{PREDICT}?version=1"),
            ("GET", f"{versions}/1"),
            ("GET", f"{versions}/1/certificate"),
            ("POST", f"{versions}/1/activate"),
            ("GET", f"/v1/models/{MODEL}/tasks/low"),
        ):
            content = png(0, 100) if path.startswith(PREDICT) else None
            answer = service.client.request(method, path, content=content, headers=PNG)
            assert (answer.status_code, answer.json()["code"], answer.json().get("object")) == (500, code, name), path
            assert name in answer.json()["detail"]
        listed = service.client.get(versions).json()["versions"]
        assert [one["version"] for one in listed] == [2, 0]
        beyond = service.client.get(f"{versions}/3")
        assert (beyond.status_code, beyond.json()["code"]) == (404, "unknown_version")

        found = service.client.get("/metrics").text.partition('backend="store",kind="damaged"} ')[2][:4]
        time.sleep(1.0)
        again = service.client.get("/metrics").text.partition('backend="store",kind="damaged"} ')[2][:4]
        assert found == again, "it is not found damaged again and again"
        record.write_bytes(whole)
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] == [])
        answer = service.client.post(f"{PREDICT}?version=1", content=png(0, 100), headers=PNG)
        assert (answer.status_code, answer.json()["version"]) == (200, 1)


def test_a_commit_that_is_harmed_while_its_version_answers_is_named(
    learned_settings: ServiceSettings, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "_AGAIN_SECONDS", 0.2)
    with running(learned_settings) as service:
        wait_until(lambda: version(service) == 2)
        flip(head(store))
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] != [])
        problem = first_problem(service)
        assert (problem["version"], problem["object"]) == (2, str(head(store).relative_to(store)))
        assert "cannot be learned on" in problem["detail"]
        assert version(service) == 2
        assert "engram_troubled_models 1.0" in service.client.get("/metrics").text


def test_versions_of_a_model_that_was_deleted_are_no_problem(
    learned_settings: ServiceSettings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_AGAIN_SECONDS", "_PASS_SECONDS"):
        monkeypatch.setattr(integrity, name, 0.0)
    # So that what was deleted is looked at before it is known that it was.
    patient = learned_settings.model_copy(update={"poll_seconds": 5.0})
    with running(patient) as service:
        wait_until(lambda: version(service) == 2)
        service.vault.models.delete(MODEL)
        time.sleep(0.5)
    assert [line.getMessage() for line in caplog.records if "neither asked for" in line.getMessage()] == []


def test_a_model_whose_own_record_is_damaged_is_named_and_the_others_answer(
    learned_settings: ServiceSettings, store: Path
) -> None:
    record = store / "models" / MODEL / "model.json"
    with running(learned_settings) as service:
        wait_until(lambda: service.client.get("/readyz").status_code == 200)
        service.client.post("/v1/models", json={"name": "other", **SMALL_MODEL}).raise_for_status()
        whole = flip(record)
        assert version(service) == 2
        wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["problems"] != [])
        assert first_problem(service)["object"] == f"models/{MODEL}/model.json"
    with running(learned_settings) as service:
        wait_until(lambda: service.client.get("/v1/models/other").status_code == 200)
        answer = service.client.post(PREDICT, content=png(0, 100), headers=PNG)
        assert (answer.status_code, answer.json()["code"]) == (503, "model_unavailable")
        assert f"models/{MODEL}/model.json" in answer.json()["detail"]
        assert "Retry-After" in answer.headers
        record.write_bytes(whole)
        wait_until(lambda: service.client.post(PREDICT, content=png(0, 100), headers=PNG).status_code == 200)
        assert version(service) == 2


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Once the event is set, every question to the storage hangs until the test is over."""
    monkeypatch.setattr(live, "_REFRESH_SECONDS", 0.5)
    hangs, over = threading.Event(), threading.Event()
    for name in ("get", "list", "list_folders", "written_at"):
        original = getattr(ObjectStore, name)

        def ask(self: ObjectStore, *given: Any, original: Any = original, **named: Any) -> Any:
            if hangs.is_set():
                over.wait(3 * PATIENCE)
            return original(self, *given, **named)

        monkeypatch.setattr(ObjectStore, name, ask)
    yield hangs
    over.set()


def test_predictions_go_on_while_the_storage_hangs(service: Service, hanging: threading.Event) -> None:
    assert version(service) == 2
    hanging.set()
    # More requests than there are threads to wait for the storage in.
    patient = httpx.Client(base_url=service.url, timeout=1)
    waiting = [threading.Thread(target=_ask_for_models, args=(patient,)) for _ in range(60)]
    for thread in waiting:
        thread.start()
    time.sleep(0.5)
    for _ in range(20):
        assert version(service) == 2
    assert service.client.get("/livez").status_code == 200
    assert service.client.get("/readyz").status_code == 200
    # Where a look at the storage takes too long, the answer is what is in service.
    assert service.client.get(f"/v1/models/{MODEL}").json()["version"] == 2
    hanging.clear()
    for thread in waiting:
        thread.join()
    patient.close()


def _ask_for_models(client: httpx.Client) -> None:
    with contextlib.suppress(httpx.HTTPError):
        client.get("/v1/models")
