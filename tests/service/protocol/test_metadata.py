"""Tests of what the Open Inference Protocol tells of the server and its models."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from testing.data.digits import png
from testing.data.models import MODEL, create, learn
from testing.servers.service import Service, wait_until
from tests.service.protocol.bodies import INFER, LENGTH, outputs, refused


def test_the_server(reader: Service) -> None:
    found = reader.client.get("/v2").json()
    assert found == {
        "name": "engram",
        "version": version("engram-vision"),
        "extensions": ["binary_tensor_data", "classification", "model_configuration", "statistics"],
    }
    assert reader.client.get("/v2/health/live").json() == {"live": True}
    assert reader.client.get("/v2/health/ready").json() == {"ready": True}


def test_a_server_that_can_answer_nothing_is_not_ready(empty: Service) -> None:
    answer = empty.client.get("/v2/health/ready")
    assert refused(answer) == (503, "not_ready")
    assert answer.json()["ready"] is False


def test_a_model(reader: Service) -> None:
    found = reader.client.get(f"/v2/models/{MODEL}").json()
    assert (found["name"], found["versions"], found["platform"]) == (MODEL, ["1", "2"], "engram")
    assert found["inputs"] == [
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
        {"name": "pixels", "datatype": "UINT8", "shape": [-1, 8, 8, 1]},
    ]
    by_name = {one["name"]: one for one in found["outputs"]}
    assert by_name["label"] == {"name": "label", "datatype": "BYTES", "shape": [-1]}
    assert by_name["probabilities"] == {
        "name": "probabilities",
        "datatype": "FP32",
        "shape": [-1, 4],
        "parameters": {
            "classes": [
                {"task": "low", "label": "digit-0"},
                {"task": "low", "label": "digit-1"},
                {"task": "mid", "label": "digit-2"},
                {"task": "mid", "label": "digit-3"},
            ]
        },
    }
    answered = outputs(reader.client.post(INFER, content=png(0, 100), headers={LENGTH: "0"}))
    assert [*answered, "heatmap"] == list(by_name)
    older = reader.client.get(f"/v2/models/{MODEL}/versions/1").json()
    assert {one["name"]: one["shape"] for one in older["outputs"]}["probabilities"] == [-1, 2]


def test_the_configuration_says_the_same(reader: Service) -> None:
    found = reader.client.get(f"/v2/models/{MODEL}/config").json()
    told = reader.client.get(f"/v2/models/{MODEL}").json()
    assert found["max_batch_size"] == 0
    assert [(one["name"], one["dims"]) for one in found["input"]] == [(i["name"], i["shape"]) for i in told["inputs"]]
    assert [(one["name"], one["dims"]) for one in found["output"]] == [(o["name"], o["shape"]) for o in told["outputs"]]
    assert {one["data_type"] for one in found["input"]} == {"TYPE_STRING", "TYPE_UINT8"}
    assert reader.client.get(f"/v2/models/{MODEL}/versions/1/config").json()["output"][7]["dims"] == [-1, 2]


def test_readiness_of_models_and_versions(reader: Service) -> None:
    for path in (f"/v2/models/{MODEL}/ready", f"/v2/models/{MODEL}/versions/1/ready"):
        assert reader.client.get(path).json() == {"name": MODEL, "ready": True}
    assert refused(reader.client.get(f"/v2/models/{MODEL}/versions/0/ready")) == (503, "not_ready")
    assert refused(reader.client.get(f"/v2/models/{MODEL}/versions/9/ready")) == (404, "unknown_version")
    assert refused(reader.client.get("/v2/models/none/ready")) == (404, "unknown_model")


def test_the_repository_index(service: Service) -> None:
    create(service.vault, "blank")
    wait_until(lambda: len(service.client.post("/v2/repository/index").json()) == 2)
    blank, digits = service.client.post("/v2/repository/index", json={}).json()
    assert digits == {"name": MODEL, "version": "2", "state": "READY", "reason": ""}
    assert (blank["name"], blank["state"]) == ("blank", "UNAVAILABLE")
    assert blank["reason"]
    assert [one["name"] for one in service.client.post("/v2/repository/index", json={"ready": True}).json()] == [MODEL]
    assert refused(service.client.post("/v2/repository/index", json={"all": 1})) == (422, "unknown_parameter")
    assert refused(service.client.post("/v2/repository/index", json={"ready": 1})) == (422, "invalid_request")


def test_statistics_count_what_was_asked(reader: Service) -> None:
    path = f"/v2/models/{MODEL}/stats"
    (before,) = reader.client.get(path).json()["model_stats"]
    for content in (png(0, 100), png(1, 100), b"no image"):
        reader.client.post(INFER, content=content, headers={LENGTH: "0"})
    (after,) = reader.client.get(path).json()["model_stats"]
    assert (after["name"], after["version"]) == (MODEL, "2")
    assert after["inference_count"] - before["inference_count"] == 2
    grown = {
        what: after["inference_stats"][what]["count"] - before["inference_stats"][what]["count"]
        for what in ("success", "fail")
    }
    assert grown == {"success": 2, "fail": 1}
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]
    assert after["last_inference"] > 1_700_000_000_000
    assert reader.client.get("/v2/models/stats").json() == {"model_stats": [after]}
    (older,) = reader.client.get(f"/v2/models/{MODEL}/versions/1/stats").json()["model_stats"]
    assert older["version"] == "1"


def test_a_class_that_is_gone_leaves_its_number(service: Service) -> None:
    """Learned, rolled back, and another learned: the third task's classes do not take the second's numbers."""
    path = f"/v1/models/{MODEL}/versions/1/activate"
    assert service.client.post(path).json()["version"] == 3
    learn(service.vault, "high", (8, 9))
    wait_until(lambda: service.client.get(f"/v2/models/{MODEL}").json()["versions"] == ["1", "2", "3", "4"])
    wait_until(lambda: service.client.get(f"/v1/models/{MODEL}").json()["version"] == 4)
    by_name = {one["name"]: one for one in service.client.get(f"/v2/models/{MODEL}").json()["outputs"]}
    assert by_name["probabilities"]["shape"] == [-1, 6]
    labels = [one and one["label"] for one in by_name["probabilities"]["parameters"]["classes"]]
    assert labels == ["digit-0", "digit-1", None, None, "digit-8", "digit-9"]
    answer = outputs(service.client.post(INFER, content=png(8, 100), headers={LENGTH: "0"}))
    (row,) = answer["probabilities"]
    assert row[2:4].tolist() == [0.0, 0.0]
    assert row.sum() == pytest.approx(1.0, abs=1e-4)
    assert labels[int(row.argmax())] == answer["label"][0]
