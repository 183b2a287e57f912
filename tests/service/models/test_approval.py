"""Tests of models whose versions wait until somebody activates them."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

from service.cli.validator import LearnerValidator
from service.settings import ServiceSettings
from testing.data.digits import SMALL_MODEL, archive, png
from testing.data.models import MODEL, learn
from testing.servers.service import Service, running, wait_until
from vault.maintenance.check import check
from vault.maintenance.export import export_model, import_model
from vault.maintenance.sweep import SweepAges

HERE = f"/v1/models/{MODEL}"


def predict(service: Service, **params: Any) -> tuple[int, str]:
    """Version and task of the answer to an image of the third task."""
    headers = {"Content-Type": "image/png"}
    answer = service.client.post(f"{HERE}/predict", content=png(8, 100), headers=headers, params=params)
    found = answer.raise_for_status().json()
    return found["version"], found["predictions"][0]["task"]


def explain(service: Service, version: int | None) -> tuple[str, str]:
    """Version and task of the heatmap for an image of the third task."""
    headers = {"Content-Type": "image/png"}
    params = {} if version is None else {"version": version}
    drawn = service.client.post(f"{HERE}/explain", content=png(8, 100), headers=headers, params=params)
    found = drawn.raise_for_status().headers
    return found["X-Engram-Version"], found["X-Engram-Task"]


def statuses(service: Service) -> dict[int, str]:
    return {one["version"]: one["status"] for one in service.client.get(f"{HERE}/versions").json()["versions"]}


def shown(service: Service) -> tuple[int, str, list[int]]:
    found = service.client.get(HERE).json()
    return found["version"], found["publish"], found["candidates"]


def test_nothing_answers_before_it_is_activated(learned_settings: ServiceSettings) -> None:
    with running(learned_settings) as service:
        changed = service.client.patch(HERE, json={"publish": "manual"}).raise_for_status().json()
        assert (changed["version"], changed["publish"], changed["candidates"]) == (3, "manual", [])
        seen: set[int] = set()
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                seen.add(predict(service)[0])

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            job = learn(service.vault, "high", (8, 9))
            wait_until(lambda: shown(service)[2] == [4])
            predict(service)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert seen == {3}
        assert job.result is not None
        assert (job.result["version"], job.result["candidate"]) == (4, True)
        assert shown(service) == (3, "manual", [4])
        assert statuses(service) == {4: "candidate", 3: "active", 2: "past", 1: "past", 0: "past"}
        assert predict(service, version=4) == (4, "high")
        assert explain(service, 4) == ("4", "high")
        assert explain(service, None)[0] == "3"
        assert [one["name"] for one in service.client.get(f"{HERE}/tasks").json()["tasks"]] == ["low", "mid"]
        listed = {one["name"]: one for one in service.client.get("/v1/models").json()["models"]}
        assert (listed[MODEL]["version"], listed[MODEL]["tasks"]) == (3, 2)
        assert service.client.get(f"{HERE}/versions/4/certificate").json()["tasks"][2]["task"] == "high"
        assert service.vault.sweep(SweepAges.all(timedelta(0))).blobs == []
    with running(learned_settings) as service:
        wait_until(lambda: service.client.get("/readyz").status_code == 200)
        assert shown(service) == (3, "manual", [4])
        assert predict(service)[0] == 3
        made = service.client.post(f"{HERE}/versions/4/activate")
        assert (made.status_code, made.json()["version"], made.json()["status"]) == (201, 5, "active")
        assert predict(service) == (5, "high")
        assert shown(service) == (5, "manual", [])
        assert service.client.post(f"{HERE}/versions/4/activate").status_code == 200


def test_a_candidate_takes_no_damaged_version_s_place(learned_settings: ServiceSettings) -> None:
    with running(learned_settings) as service:
        service.client.patch(HERE, json={"publish": "manual"}).raise_for_status()
        learn(service.vault, "high", (8, 9))
    store = learned_settings.store_folder
    assert store is not None
    for harmed in ("3", "4"):  # the one that answers, then the newest as well
        for record in (store / "models" / MODEL).rglob(f"0000000{harmed}.json"):
            record.write_bytes(b"{")
        with running(learned_settings) as service:
            assert predict(service)[0] == 2
            assert service.client.get(HERE).json()["problems"]


def test_what_waits_can_be_rejected(service: Service) -> None:
    service.client.patch(HERE, json={"publish": "manual"}).raise_for_status()
    learn(service.vault, "high", (8, 9))
    refused = service.client.patch(HERE, json={"publish": "auto"})
    assert (refused.status_code, refused.json()["code"]) == (409, "candidates_waiting")
    headers = {"Idempotency-Key": "no"}
    rejected = service.client.post(f"{HERE}/versions/4/reject", headers=headers)
    assert (rejected.status_code, rejected.json()["version"], rejected.json()["kind"]) == (201, 5, "reject")
    assert service.client.post(f"{HERE}/versions/4/reject", headers=headers).json() == rejected.json()
    again = service.client.post(f"{HERE}/versions/4/reject")
    assert (again.status_code, again.json()["code"]) == (409, "not_a_candidate")
    assert service.client.post(f"{HERE}/versions/99/reject").status_code == 404
    assert shown(service) == (3, "manual", [])
    assert statuses(service)[4] == "past"
    assert predict(service)[0] == 3
    back = service.client.patch(HERE, json={"publish": "auto", "budget": 16.0}).raise_for_status().json()
    assert (back["version"], back["publish"]) == (6, "auto")
    assert learn(service.vault, "high", (8, 9)).result["version"] == 7  # type: ignore[index]
    wait_until(lambda: predict(service) == (7, "high"))


def test_a_model_is_made_so(empty: Service) -> None:
    asked = {"name": "careful", **SMALL_MODEL, "publish": "manual"}
    made = empty.client.post("/v1/models", json=asked)
    assert (made.status_code, made.json()["publish"]) == (201, "manual")
    assert empty.client.post("/v1/models", json=asked).status_code == 200
    assert empty.client.post("/v1/models", json={"name": "careful", **SMALL_MODEL}).status_code == 200
    other = empty.client.post("/v1/models", json=asked | {"publish": "auto"})
    assert (other.status_code, other.json()["code"]) == (409, "model_exists")
    assert empty.client.post("/v1/models", json=asked | {"publish": "later"}).status_code == 422
    first = learn(empty.vault, "low", (0, 1), "careful")
    assert first.result is not None
    assert first.result["candidate"]
    empty.client.get("/v1/models/careful")
    # Its name is taken, although it does not answer.
    sent = {"data": archive((2, 3))}
    taken = empty.client.post("/v1/models/careful/tasks", data={"name": "low"}, files=sent)
    assert (taken.status_code, taken.json()["code"]) == (409, "task_exists")


def test_candidates_are_checked_and_moved(service: Service, tmp_path: Path) -> None:
    service.client.patch(HERE, json={"publish": "manual"}).raise_for_status()
    learn(service.vault, "high", (8, 9))
    validator = LearnerValidator(service.vault.objects)
    assert check(service.vault.objects, validator).problems == []
    export_model(service.vault.objects, MODEL, tmp_path / "file")
    import_model(service.vault.objects, tmp_path / "file", validator, "twin")
    twin = service.client.get("/v1/models/twin").json()
    assert (twin["version"], twin["publish"], twin["candidates"]) == (3, "manual", [4])
    assert service.vault.audit.list(model="twin") == []
