"""Tests of a model's history over HTTP."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from engram.config.engines import EngineName
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.nn.network import Network
from engram.nn.runtimes import RUNTIMES
from engram.runtime import has_bf16
from service.models.loaded import load
from testing.data.digits import png
from testing.servers.service import Service
from vault.errors import UnsupportedRecord
from vault.models import WITH_ONNX_RUNTIME_2, WITH_OPENVINO, WITH_PRECISION
from vault.storage import documents
from vault.vault import Vault

VERSIONS = "/v1/models/digits/versions"


def test_history_is_listed_newest_first_by_pages(service: Service) -> None:
    first = service.client.get(VERSIONS, params={"limit": 2}).json()
    assert [(one["version"], one["kind"], one["task"]) for one in first["versions"]] == [
        (2, "learn", "mid"),
        (1, "learn", "low"),
    ]
    second = service.client.get(VERSIONS, params={"limit": 2, "after": first["next"]}).json()
    assert [(one["version"], one["kind"]) for one in second["versions"]] == [(0, "create")]
    assert second["next"] is None


def test_one_version_shares_all_but_its_last_task(service: Service) -> None:
    one, two = (service.client.get(f"{VERSIONS}/{number}").json() for number in (1, 2))
    assert two["engrams"][:-2] == one["engrams"], "two blobs a task"
    assert [task["name"] for task in two["tasks"]] == ["low", "mid"]
    assert two["tasks"][1]["classes"] == ["digit-2", "digit-3"]


def test_back_and_forth(service: Service) -> None:
    def version_and_task() -> tuple[int, str]:
        headers = {"Content-Type": "image/png"}
        answer = service.client.post("/v1/models/digits/predict", content=png(2, 100), headers=headers).json()
        return answer["version"], answer["predictions"][0]["task"]

    assert version_and_task() == (2, "mid")
    back = service.client.post(f"{VERSIONS}/1/activate")
    assert back.status_code == 201
    assert back.headers["Location"] == f"{VERSIONS}/3"
    assert (back.json()["version"], back.json()["kind"], back.json()["target"]) == (3, "activate", 1)
    assert version_and_task() == (3, "low")
    assert [task["name"] for task in service.client.get("/v1/models/digits/tasks").json()["tasks"]] == ["low"]
    assert service.client.get("/v1/models/digits/tasks/mid").status_code == 404
    service.client.post(f"{VERSIONS}/2/activate").raise_for_status()
    assert version_and_task() == (4, "mid")
    shown = service.client.get("/v1/models/digits/tasks/mid").json()
    assert (shown["version"], shown["report"]["task"]) == (2, "mid")


def test_what_is_served_already_is_not_activated_again(service: Service) -> None:
    current = service.client.post(f"{VERSIONS}/2/activate")
    assert (current.status_code, current.json()["version"], current.json()["kind"]) == (200, 2, "learn")
    assert service.client.post(f"{VERSIONS}/1/activate").status_code == 201
    again = service.client.post(f"{VERSIONS}/1/activate")
    assert (again.status_code, again.headers["Location"]) == (200, f"{VERSIONS}/3")
    assert (again.json()["version"], again.json()["target"]) == (3, 1)
    assert [one["version"] for one in service.client.get(VERSIONS).json()["versions"]] == [3, 2, 1, 0]


def test_a_model_is_not_emptied_by_mistake(service: Service) -> None:
    refused = service.client.post(f"{VERSIONS}/0/activate")
    assert (refused.status_code, refused.json()["code"]) == (409, "empty_version")
    assert "allow_empty=true" in refused.json()["detail"]
    assert service.client.get("/v1/models/digits").json()["version"] == 2
    emptied = service.client.post(f"{VERSIONS}/0/activate?allow_empty=true")
    assert (emptied.status_code, emptied.json()["version"], emptied.json()["tasks"]) == (201, 3, [])
    # It serves nothing by now, so that nothing is lost.
    assert service.client.post(f"{VERSIONS}/0/activate").status_code == 200
    assert service.client.post(f"{VERSIONS}/2/activate").json()["version"] == 4


def test_a_damaged_head_is_not_given_up_for_an_empty_version_by_mistake(service: Service) -> None:
    store = service.vault.settings.store_folder
    assert store is not None
    for head in (store / "models" / "digits").rglob("*2.json"):
        head.write_bytes(b"{")
    refused = service.client.post(f"{VERSIONS}/0/activate")
    assert (refused.status_code, refused.json()["code"]) == (409, "empty_version")
    emptied = service.client.post(f"{VERSIONS}/0/activate?allow_empty=true")
    assert (emptied.status_code, emptied.json()["version"]) == (201, 3)


def test_the_certificate_repeats_old_digests(service: Service) -> None:
    one, two = (service.client.get(f"{VERSIONS}/{number}/certificate").json() for number in (1, 2))
    assert [task["task"] for task in two["tasks"]] == ["low", "mid"]
    assert two["tasks"][0] == one["tasks"][0] | {"checked_in": 2}
    assert one["tasks"][0]["checked_in"] == 1
    assert set(two["tasks"][0]["shapes"]) == {"1", "2", "4", "8", "16"}
    assert two["environment"]["threads"] >= 1
    none = service.client.get(f"{VERSIONS}/0/certificate")
    assert (none.status_code, none.json()["code"]) == (404, "certificate_missing")


def test_the_engine_is_named_where_answers_are_described(service: Service) -> None:
    certificate = service.client.get(f"{VERSIONS}/2/certificate").json()
    assert (certificate["engine"], certificate["baseline"], certificate["signature"]) == ("eager-1", "certified", None)
    assert certificate["digests"] == []
    assert certificate["subject"]["engrams"] == service.client.get(f"{VERSIONS}/2").json()["engrams"]
    assert service.client.get(f"{VERSIONS}/2").json()["engine"] == "eager-1"
    assert service.client.get("/v1/models/digits").json()["engine"] == "eager-1"
    unknown = {"name": "other", "input": {"channels": 1, "height": 28, "width": 28}, "engine": "eager-2"}
    refused = service.client.post("/v1/models", json=unknown)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


def test_how_a_version_is_answered_soonest_is_found_out_when_it_is_loaded(
    service: Service, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[Network] = []
    monkeypatch.setattr(Network, "prepare", lambda self: prepared.append(self))
    method = load(vault, vault.models.get("digits"), vault.log.read("digits", 2)).memory.method
    assert isinstance(method, StagedEidetic)
    assert any(network is method.serving().network for network in prepared)


@pytest.mark.parametrize(("engine", "number"), [("onnxruntime-2", WITH_ONNX_RUNTIME_2), ("openvino-1", WITH_OPENVINO)])
def test_a_model_by_another_runtime_is_one_that_earlier_releases_refuse(
    service: Service, vault: Vault, monkeypatch: pytest.MonkeyPatch, engine: EngineName, number: int
) -> None:
    if not all(map(find_spec, RUNTIMES[engine].packages)):
        pytest.skip(f"the extra {RUNTIMES[engine].extra} is not installed")
    fields = {"input": {"channels": 1, "height": 28, "width": 28}, "engine": engine}
    made = service.client.post("/v1/models", json={"name": engine, **fields})
    assert (made.status_code, made.json()["engine"]) == (201, engine)
    dense = service.client.post("/v1/models", json={"name": "dense", **fields, "backbone": "mlp"})
    assert (dense.status_code, dense.json()["code"]) == (422, "invalid_request")
    assert engine in dense.text
    monkeypatch.setattr(documents, "FORMAT", number - 1)
    with pytest.raises(UnsupportedRecord, match=f"format {number}"):
        vault.models.get(engine)


def test_a_model_in_bf16_is_one_that_earlier_releases_refuse(
    service: Service, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"backbone": "cnn", "input": {"channels": 1, "height": 28, "width": 28}, "precision": "bf16"}
    made = service.client.post("/v1/models", json={"name": "halved", **fields})
    if not has_bf16(torch.device("cpu")):
        assert (made.status_code, made.json()["code"]) == (422, "precision_missing")
        return
    assert (made.status_code, made.json()["precision"]) == (201, "bf16")
    assert service.client.get("/v1/models/digits").json()["precision"] == "fp32"
    again = service.client.post("/v1/models", json={"name": "halved", **fields, "precision": "fp32"})
    assert (again.status_code, again.json()["code"]) == (409, "model_exists")
    dense = service.client.post("/v1/models", json={"name": "dense", **fields, "backbone": "mlp"})
    assert (dense.status_code, dense.json()["code"]) == (422, "invalid_request")
    assert vault.models.get("digits").format_version == 1
    monkeypatch.setattr(documents, "FORMAT", WITH_PRECISION - 1)
    with pytest.raises(UnsupportedRecord, match=f"format {WITH_PRECISION}"):
        vault.models.get("halved")
