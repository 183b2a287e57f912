"""Tests of tasks and labels that are shown by other names than they were learned under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engram.config.definition import Definition
from engram.config.options import LearnOptions
from engram.errors import NoNetwork, TaskExists
from engram.memory import Memory
from engram.recognition.naming import Naming
from service.cli.validator import LearnerValidator
from service.models.loaded import NamedMemory
from service.settings import ServiceSettings
from testing.data.digits import QUICK, SMALL_MODEL, archive, pixels, png
from testing.data.models import MODEL, examples, learn, submit
from testing.servers.service import Service, running
from vault.audit import of_version
from vault.maintenance.check import check
from vault.maintenance.export import export_model, import_model

HERE = f"/v1/models/{MODEL}"
IMAGE = {"Content-Type": "image/png"}
RENAMED = {"name": "small", "labels": {"digit-0": "zero"}}
LEARNED = {"name": "low", "classes": ["digit-0", "digit-1"]}
SHOWN = {"name": "small", "classes": ["zero", "digit-1"], "learned_as": LEARNED}


def rename(
    service: Service, task: str, body: dict[str, Any], status: int = 201, key: str | None = None
) -> dict[str, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = service.client.patch(f"{HERE}/tasks/{task}", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def get(service: Service, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = service.client.get(HERE + path).raise_for_status().json()
    return found


def predict(service: Service, digit: int = 0, model: str = HERE, **params: Any) -> dict[str, Any]:
    asked = {"top_k": 4, **params}
    answer = service.client.post(f"{model}/predict", content=png(digit, 100), headers=IMAGE, params=asked)
    found: dict[str, Any] = answer.raise_for_status().json()["predictions"][0]
    return found


def submitted(service: Service, task: str) -> tuple[int, str]:
    """What a task of this name is answered with."""
    answer = service.client.post(f"{HERE}/tasks", data={"name": task}, files={"data": archive((6, 7), 2)})
    return answer.status_code, answer.json().get("code")


def numbers(value: Any) -> Any:
    """What is left of an answer without its names."""
    if isinstance(value, dict):
        return {key: numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [numbers(one) for one in value]
    return "" if isinstance(value, str) else value


TENSORS = {"parameters": {"task": "low"}, "outputs": [{"name": "label"}, {"name": "probabilities"}]}
REFUSED: list[tuple[str, int, str, dict[str, Any]]] = [
    ("low", 409, "task_exists", {"name": "mid"}),
    ("low", 409, "label_exists", {"labels": {"digit-0": "digit-1"}}),
    ("low", 409, "label_exists", {"labels": {"digit-0": "Digit-1"}}),
    ("low", 409, "label_exists", {"labels": {"digit-0": "a", "digit-1": "a"}}),
    ("low", 404, "unknown_label", {"labels": {"digit-9": "nine"}}),
    ("none", 404, "unknown_task", {"name": "a"}),
    ("low", 422, "invalid_request", {}),
    ("low", 422, "invalid_request", {"name": None}),
    ("low", 422, "invalid_request", {"name": "a/b"}),
    ("low", 422, "invalid_name", {"name": " a"}),
    *(("low", 422, "invalid_name", {"labels": {"digit-0": label}}) for label in ("", "a/b", "..", ".git", "a ")),
    ("low", 422, "invalid_request", {"version": 3}),
]
ASKED: list[dict[str, Any]] = [{}, {"task": "low", "logits": True}, {"contenders": "all", "explain": "json"}]


def test_answers_carry_the_new_names_and_nothing_else_changes(service: Service) -> None:
    before = [predict(service, **asked) for asked in ASKED]
    made = rename(service, "low", RENAMED)
    assert (made["version"], made["kind"], made["task"]) == (3, "rename", "small")
    assert made["renamed"] == {"from": "low", "to": "small", "labels": {"digit-0": "zero"}}
    assert made["tasks"][0] == SHOWN
    for asked, old in zip(ASKED, before, strict=True):
        for name in ("small", "low"):  # the name that it was learned under is still understood
            new = predict(service, **asked | ({"task": name} if "task" in asked else {}))
            assert (new["task"], new["label"], new["top"][0]["label"]) == ("small", "zero", "zero")
            assert numbers(new) == numbers(old)
            assert new["ran"] == ["small" if one == "low" else one for one in old["ran"]]
            assert "low" not in str(new)
    assert predict(service, version=2) == before[0]
    back = rename(service, "small", {"name": "low", "labels": {"zero": "digit-0"}})
    assert (back["version"], "learned_as" in back["tasks"][0]) == (4, False)
    assert [predict(service, **asked) for asked in ASKED] == before
    assert predict(service, version=3)["label"] == "zero"


def test_everything_else_shows_the_new_names_too(service: Service) -> None:
    numbered = service.client.get(f"/v2/models/{MODEL}").json()["outputs"]
    logits = service.client.post(f"{HERE}/explain", content=png(0, 100), headers=IMAGE, params={"format": "json"})
    certificate = get(service, "/versions/2/certificate")
    rename(service, "low", RENAMED)
    assert get(service)["tasks"][0] == SHOWN
    assert all(set(layer["owned"]) == {"small", "mid"} for layer in get(service)["capacity"])
    assert get(service, "/tasks")["tasks"][0] == SHOWN
    for name in ("small", "low"):
        found = get(service, f"/tasks/{name}")
        assert (found["name"], found["learned_as"], found["version"]) == ("small", LEARNED, 1)
    assert get(service, "/versions")["versions"][0]["renamed"]["to"] == "small"
    for asked in ({}, {"target": "zero"}, {"target": "digit-0", "task": "low"}):
        query = {"format": "json", **asked}
        answer = service.client.post(f"{HERE}/explain", content=png(0, 100), headers=IMAGE, params=query)
        found = answer.raise_for_status().json()
        assert (found["task"], found["label"], answer.headers["X-Engram-Task"]) == ("small", "zero", "small")
        assert found["relevance"] == logits.json()["relevance"]
    proof = get(service, "/versions/3/certificate")
    assert proof.pop("names") == {"low": {"name": "small", "labels": {"digit-0": "zero"}}}
    assert proof == certificate, "what was certified stays as it was, by the name it was learned under"
    classes = service.client.get(f"/v2/models/{MODEL}").json()["outputs"]
    (old,) = [one["parameters"]["classes"] for one in numbered if one["name"] == "probabilities"]
    (new,) = [one["parameters"]["classes"] for one in classes if one["name"] == "probabilities"]
    assert new == [{"task": "small", "label": "zero"}, {"task": "small", "label": "digit-1"}, *old[2:]]
    pixels = {"name": "pixels", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [0] * 64}
    answer = service.client.post(f"/v2/models/{MODEL}/infer", json={"inputs": [pixels], **TENSORS})
    label, shares = answer.raise_for_status().json()["outputs"]
    assert label["data"][0] in SHOWN["classes"]
    assert [share > 0 for share in shares["data"]] == [True, True, False, False]
    (entry,) = service.client.get("/v1/audit", params={"action": "rename"}).json()["entries"]
    assert (entry["task"], entry["version"], entry["renamed"]["to"]) == ("low", 3, "small")


def test_what_is_ambiguous_or_not_there_is_refused(service: Service) -> None:
    for task, status, code, body in REFUSED:
        assert rename(service, task, body, status)["code"] == code, body
    assert get(service)["version"] == 2
    job = submit(service.vault, "high", (4, 5))
    assert rename(service, "low", {"name": "high"}, 409)["code"] == "task_exists"
    service.vault.jobs.request_cancel(job.id)
    rename(service, "low", {"name": "small"})
    assert rename(service, "mid", {"name": "low"}, 409)["code"] == "task_exists", (
        "a name stays with whom it was learned by"
    )
    for name in ("low", "small"):
        assert submitted(service, name) == (409, "task_exists")


def test_a_request_that_is_made_again_makes_nothing(service: Service) -> None:
    first = rename(service, "low", {"name": "small"}, key="a")
    assert rename(service, "low", {"name": "small"}, key="a") == first
    assert rename(service, "low", {"name": "small"}, 200)["version"] == first["version"] == 3
    swapped = rename(service, "small", {"labels": {"digit-0": "digit-1", "digit-1": "digit-0"}})
    assert swapped["tasks"][0]["classes"] == ["digit-1", "digit-0"]
    assert predict(service)["label"] == "digit-1"
    assert predict(service, task="low")["task"] == "small"
    assert get(service)["version"] == 4


def test_an_entry_that_is_owed_is_written_once(service: Service) -> None:
    rename(service, "low", {"name": "small"})
    head = service.vault.log.head(MODEL)
    assert head is not None
    entry = of_version(MODEL, head)
    assert entry is not None
    service.vault.objects.delete(f"audit/{entry.id}.json")
    service.vault.complete_audit()
    service.vault.complete_audit()
    assert service.vault.audit.list(action="rename") == [entry]


def test_what_is_learned_later_keeps_the_names_and_so_does_a_bundle(
    learned_settings: ServiceSettings, tmp_path: Path
) -> None:
    with running(learned_settings) as service:
        before = predict(service)
        rename(service, "low", RENAMED)
        assert learn(service.vault, "small", (4, 5)).error == {
            "code": "task_exists",
            "detail": "the model already has a task 'small', which was learned under another name",
        }
        learn(service.vault, "high", (4, 5))
        assert [task["name"] for task in get(service, "/versions/4")["tasks"]] == ["small", "mid", "high"]
        service.client.post(f"{HERE}/versions/2/activate").raise_for_status()
        assert predict(service) == before
        service.client.post(f"{HERE}/versions/4/activate").raise_for_status()
        assert (get(service)["version"], get(service)["tasks"][0]) == (6, SHOWN)
        export_model(service.vault.objects, MODEL, tmp_path / "bundle")
        validator = LearnerValidator(service.vault.objects)
        import_model(service.vault.objects, tmp_path / "bundle", validator, "copy")
        other = predict(service, model="/v1/models/copy")
        assert other == predict(service)
        assert other["label"] == "zero"
        assert check(service.vault.objects, validator, deep=True).whole
    with running(learned_settings) as service:  # whose guard compares all tasks with their certificates
        assert get(service)["problems"] == []
        assert predict(service) == other


def test_a_rename_waits_where_somebody_has_to_approve(service: Service) -> None:
    service.client.patch(HERE, json={"publish": "manual"}).raise_for_status()
    learn(service.vault, "high", (4, 5))
    made = rename(service, "high", {"name": "tall"})
    assert (made["status"], made["version"]) == ("candidate", 5)
    assert rename(service, "high", {"name": "tall"}, 200)["version"] == 5
    assert [task["name"] for task in get(service)["tasks"]] == ["low", "mid"]
    assert [task["name"] for task in get(service, "/versions/5")["tasks"]] == ["low", "mid", "tall"]
    assert predict(service, 4, version=5, task="high")["task"] == "tall"
    assert submitted(service, "tall") == submitted(service, "high") == (409, "task_exists")
    service.client.post(f"{HERE}/versions/5/activate").raise_for_status()
    assert [task["name"] for task in get(service)["tasks"]] == ["low", "mid", "tall"]
    assert get(service)["candidates"] == []


def test_a_heatmap_that_cannot_be_made_is_refused_by_the_name_that_is_shown() -> None:
    memory = Memory.create(Definition.model_validate(SMALL_MODEL))
    for task, digits in {"low": (0, 1), "one": (2,)}.items():
        memory.learn(task, examples(digits), LearnOptions.model_validate(QUICK))
    named = NamedMemory(memory, Naming.of(memory.tasks, {"one": ("single", ("two",))}))
    image = torch.from_numpy(pixels(2, 100))[None]
    with pytest.raises(NoNetwork, match="'single'"):
        named.explain(image, task="one")
    with pytest.raises(TaskExists, match="'single'"):
        named.admit("single")
    assert [one.name for one in named.tasks] == ["low", "single"]
