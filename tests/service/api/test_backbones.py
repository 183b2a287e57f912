"""Tests of backbones over HTTP: stored, listed, deleted and refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from engram.errors import ArchitectureMissing, DamagedSnapshot
from service.cli.validator import LearnerValidator
from service.errors.exceptions import ArchitectureUnavailable, ModelUnavailable
from service.models.soundness.problems import Problem, unavailable
from service.settings import ServiceSettings
from testing.data.networks import ARCHITECTURE, CLASSES, SIZE, weights
from testing.processes.races import race
from testing.servers.service import Service, running
from vault.commit_log import Commit
from vault.errors import UnsupportedRecord
from vault.maintenance.check import check
from vault.maintenance.export import export_model, import_model
from vault.maintenance.sweep import SweepAges
from vault.models import WITH_BACKBONES, WITH_TOGETHER
from vault.storage import documents

CONFIG = {"size": SIZE}
FORM = {"name": "small", "architecture": ARCHITECTURE, "config": json.dumps(CONFIG)}


def post(service: Service, data: bytes | None = None, key: str | None = None, **fields: str | None) -> httpx.Response:
    form = {name: text for name, text in (FORM | fields).items() if text is not None}
    files = {"weights": ("weights.safetensors", weights() if data is None else data)}
    headers = {} if key is None else {"Idempotency-Key": key}
    return service.client.post("/v1/backbones", data=form, files=files, headers=headers)


def stored(service: Service) -> list[str]:
    return service.vault.objects.list("blobs") + service.vault.objects.list("backbones")


def test_stored_shown_listed_and_deleted(empty: Service) -> None:
    made = post(empty, licence="bsd-3-clause", classes=json.dumps(CLASSES))
    assert (made.status_code, made.headers["location"]) == (201, "/v1/backbones/small")
    found = made.json()
    assert found["weights"] == hashlib.sha256(weights()).hexdigest()
    assert (found["name"], found["architecture"], found["bytes"]) == ("small", ARCHITECTURE, len(weights()))
    assert (found["licence"], found["classes"], found["outputs"]) == ("bsd-3-clause", list(CLASSES), 4)
    assert found["preprocessing"]["size"] == SIZE
    assert empty.client.get("/v1/backbones/small").json() == found
    assert post(empty, name="another").status_code == 201
    first = empty.client.get("/v1/backbones", params={"limit": 1}).json()
    assert [one["name"] for one in first["backbones"]] == ["another"]
    second = empty.client.get("/v1/backbones", params={"limit": 1, "after": first["next"]}).json()
    offer = found["heatmaps"]
    assert offer["default"] in offer["composites"]
    assert second == {"backbones": [{name: value for name, value in found.items() if name != "heatmaps"}], "next": None}
    assert len(empty.vault.objects.list("blobs")) == 1

    assert empty.client.delete("/v1/backbones/small").status_code == 204
    for refused in (empty.client.get, empty.client.delete):
        answer = refused("/v1/backbones/small")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_backbone")
    assert [one["name"] for one in empty.client.get("/v1/backbones").json()["backbones"]] == ["another"]
    assert post(empty, weights(1)).status_code == 201


def test_stored_again_nothing_changes_and_what_is_missing_is_put_back(empty: Service) -> None:
    made = post(empty).json()
    path = f"blobs/{made['weights']}"
    empty.vault.objects.delete(path)
    again = post(empty)
    assert (again.status_code, again.json()) == (200, made)
    assert empty.vault.objects.get(path) == weights()
    before = stored(empty)
    for other in (post(empty, weights(1)), post(empty, licence="mit"), post(empty, config=None)):
        assert (other.status_code, other.json()["code"]) == (409, "backbone_exists")
    assert stored(empty) == before


def test_another_version_of_the_library_is_the_same_network(empty: Service) -> None:
    made = post(empty).json()
    record = empty.vault.backbones.get("small")
    empty.vault.backbones.delete(record)
    empty.vault.backbones.create("small", {**record.description, "library": "torchvision 0.1"}, record.weights)
    again = post(empty)
    assert (again.status_code, again.json()["library"]) == (200, "torchvision 0.1")
    assert made["library"] != "torchvision 0.1"


def test_under_a_key_it_is_done_once(empty: Service) -> None:
    first = post(empty, key="a")
    again = post(empty, key="a")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert post(empty, weights(1), key="a").json()["code"] == "idempotency_key_reused"


def test_whose_answer_was_lost_is_told_that_it_was_made(empty: Service) -> None:
    first = post(empty, key="a")
    for path in empty.vault.objects.list("idempotency"):
        if path.endswith("answer.json"):
            empty.vault.objects.delete(path)
    assert (post(empty, key="a").status_code, post(empty).status_code) == (201, 200)
    assert empty.client.get("/v1/backbones/small").json() == first.json()


def test_of_racing_requests_one_makes_it(empty: Service) -> None:
    weights()
    made = race(3, lambda _: post(empty))
    assert sorted(answer.status_code for answer in made) == [200, 200, 201]
    assert len(empty.vault.backbones.list()) == 1


REFUSED: list[tuple[bytes | None, dict[str, str | None], int, str]] = [
    (pickle.dumps({"weight": 1}), {}, 422, "pickle_refused"),
    (b"weights", {}, 422, "damaged_weights"),
    (b"", {}, 422, "damaged_weights"),
    (None, {"architecture": "torchvision/mobilenet_v3_large"}, 422, "missing_tensors"),
    (None, {"architecture": "torchvision/resnet81"}, 422, "unknown_architecture"),
    (None, {"architecture": "hf-hub:timm/resnet18"}, 422, "unknown_architecture"),
    (None, {"arguments": '{"pretrained": true}'}, 422, "invalid_backbone"),
    (None, {"config": '{"size": 64, "color": 1}'}, 422, "invalid_backbone"),
    (None, {"classes": '["ant"]'}, 422, "invalid_backbone"),
    (None, {"name": "../small"}, 422, "invalid_name"),
    (None, {"name": None}, 422, "invalid_request"),
    (None, {"architecture": None}, 422, "invalid_request"),
    (None, {"classes": "ant"}, 400, "invalid_json"),
    (None, {"config": "[]"}, 422, "invalid_request"),
    (None, {"size": "64"}, 422, "invalid_request"),
]


def test_refused_with_nothing_stored(empty: Service) -> None:
    for data, fields, status, code in REFUSED:
        answer = post(empty, data, **fields)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert stored(empty) == []


def test_bodies_that_are_no_such_form(empty: Service) -> None:
    bodies: list[tuple[dict[str, Any], int]] = [
        ({"json": FORM}, 415),
        ({"data": FORM}, 415),
        ({"files": {name: (None, text) for name, text in FORM.items()}}, 422),
    ]
    for sent, status in bodies:
        answer = empty.client.post("/v1/backbones", **sent)
        assert answer.status_code == status, answer.text
    assert post(empty, weights="text").json()["code"] == "invalid_multipart"


def test_as_large_as_is_allowed(settings: ServiceSettings) -> None:
    room = len(weights()) + 4096
    small = {"max_document_bytes": 2048, "max_request_bytes": 2048, "max_upload_bytes": 2048}
    with running(settings.model_copy(update=small | {"max_backbone_bytes": room})) as service:
        assert post(service).status_code == 201
        answer = post(service, weights() + bytes(8192))
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")


def test_not_deleted_while_a_model_has_it(empty: Service) -> None:
    made = post(empty).json()
    model = empty.vault.models.create("lines", {"of": "another release"}, WITH_BACKBONES)
    engrams = (made["weights"],)
    empty.vault.log.append("lines", Commit.first(model, engrams=engrams, backbones=engrams))
    answer = empty.client.delete("/v1/backbones/small")
    assert (answer.status_code, answer.json()["code"]) == (409, "backbone_in_use")
    assert "lines" in answer.json()["detail"]
    empty.vault.delete_model("lines")
    assert empty.client.delete("/v1/backbones/small").status_code == 204
    assert empty.vault.sweep(SweepAges.all(timedelta(seconds=-1))).blobs == [f"blobs/{made['weights']}"]


def test_a_model_over_a_network(empty: Service, tmp_path: Path) -> None:
    weights_sha = post(empty).json()["weights"]
    commons = {"kind": "pretrained", "backbone": "small"}
    shape = {"channels": 3, "height": SIZE, "width": SIZE}
    body = {"name": "lines", "backbone": "none", "input": shape, "commons": commons}
    assert empty.client.post("/v1/models", json=body | {"commons": commons | {"backbone": "large"}}).json()["code"] == (
        "unknown_backbone"
    )
    blob = tmp_path / "store" / "blobs" / weights_sha
    os.utime(blob, (long_ago := 10**9, long_ago))
    made = empty.client.post("/v1/models", json=body)
    assert made.status_code == 201, made.text
    assert blob.stat().st_mtime == long_ago, "gigabytes are not written anew"
    assert made.json()["commons"]["source"]["weights"] == weights_sha
    assert empty.client.post("/v1/models", json=body).status_code == 200
    head = empty.vault.log.head("lines")
    assert head is not None
    assert (head.backbones, head.format) == ((weights_sha,), WITH_BACKBONES)
    assert empty.client.delete("/v1/backbones/small").json()["code"] == "backbone_in_use"
    assert empty.vault.sweep(SweepAges.all(timedelta(seconds=-1))).blobs == []
    export_model(empty.vault.objects, "lines", tmp_path / "bundle")
    assert import_model(
        empty.vault.objects, tmp_path / "bundle", LearnerValidator(empty.vault.objects), "twin"
    ).backbones == ("small",)
    assert empty.client.get("/v1/models/twin").json()["commons"] == made.json()["commons"]
    assert check(empty.vault.objects, LearnerValidator(empty.vault.objects), deep=True).problems == []


def test_a_model_over_a_network_is_changed_also_when_the_networks_name_is_gone(empty: Service) -> None:
    for name in ("small", "twin"):
        post(empty, name=name).raise_for_status()
    shape = {"channels": 3, "height": SIZE, "width": SIZE}
    body = {"name": "lines", "input": shape, "commons": {"kind": "pretrained", "backbone": "small"}, "width": 0.25}
    assert empty.client.post("/v1/models", json=body).status_code == 201
    assert empty.client.delete("/v1/backbones/small").status_code == 204
    for version, change in enumerate(({"background": "#00ff00"}, {"publish": "manual"}, {"budget": 16.0}), 1):
        changed = empty.client.patch("/v1/models/lines", json=change)
        assert (changed.status_code, changed.json().get("version")) == (200, version), changed.text


def test_a_model_over_networks_together_is_one_that_earlier_releases_refuse(
    empty: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(empty).raise_for_status()
    network = {"kind": "pretrained", "backbone": "small", "features": 256}
    beside = {**network, "size": SIZE + 32, "together": True}
    body = {"name": "lines", "input": {"channels": 3, "height": SIZE, "width": SIZE}, "backbone": "none"}
    refused = empty.client.post("/v1/models", json={**body, "commons": [beside, network]})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    made = empty.client.post("/v1/models", json={**body, "commons": [network, beside]})
    assert made.status_code == 201, made.text
    assert [part["together"] for part in made.json()["commons"]] == [False, True]
    assert empty.client.patch("/v1/models/lines", json={"budget": 16.0}).status_code == 200
    del body["input"]
    shown = empty.client.post("/v1/models", json={**body, "name": "whole", "commons": [network, beside]}).json()
    assert (shown["input"]["height"], shown["input"]["width"]) == (SIZE + 32, SIZE + 32)
    monkeypatch.setattr(documents, "FORMAT", WITH_TOGETHER - 1)
    with pytest.raises(UnsupportedRecord, match=f"format {WITH_TOGETHER}"):
        empty.vault.models.get("lines")


def test_a_model_whose_architecture_is_not_here_has_an_error_of_its_own() -> None:
    missing = unavailable("lines", [Problem.of(ArchitectureMissing("timm is not installed here"), 0)])
    assert type(missing) is ArchitectureUnavailable
    assert "timm is not installed" in str(missing)
    for problems in ([], [Problem.of(DamagedSnapshot("it is"), 0)]):
        assert type(unavailable("lines", problems)) is ModelUnavailable
