"""Tests of the comparison of answers before a version is served, with bits that are flipped."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engram.certificate import Certificate
from engram.errors import AnswersDiffer
from engram.methods.eidetic.staged.served_task import ServedTask
from service.models.loaded import LoadedVersion, load
from service.models.soundness import answers
from service.models.soundness.answers import AnswersGuard
from service.settings import ServiceSettings
from testing.data.digits import png
from testing.data.models import MODEL, learn
from testing.servers.service import Service, running, wait_until
from vault.certificates.digests import ServedDigest
from vault.vault import Vault


@pytest.fixture
def vault(learned_settings: ServiceSettings) -> Vault:
    """A vault over a store of the test's own with the two tasks."""
    return Vault.connect(learned_settings)


def loaded(vault: Vault) -> LoadedVersion:
    """The newest version, as a process loads it."""
    head = vault.log.head(MODEL)
    assert head is not None
    return load(vault, vault.models.get(MODEL), head)


def flip(patch: pytest.MonkeyPatch, task: str, thread: str = "") -> None:
    """Flip the last bit of one of a task's logits, in threads whose names begin like this."""
    true = ServedTask._values

    def flipped(self: ServedTask, *given: Any) -> tuple[Tensor, Tensor]:
        features, logits = true(self, *given)
        if self.info.name == task and threading.current_thread().name.startswith(thread):
            logits = logits.clone()
            logits.view(torch.int32)[-1, 0] ^= 1
        return features, logits

    patch.setattr(ServedTask, "_values", flipped)


def certificate(vault: Vault) -> Certificate:
    return Certificate.from_dict(json.loads(vault.objects.get_blob(str(loaded(vault).commit.certificate))))


def recertify(vault: Vault, **changes: Any) -> Certificate:
    """Append a version whose certificate says something else."""
    head = loaded(vault).commit
    changed = replace(certificate(vault), **changes)
    sha = vault.objects.put_blob(json.dumps(changed.to_dict()).encode())
    vault.log.append(MODEL, head.following("budget", certificate=sha))
    return changed


def elsewhere(vault: Vault, **changes: Any) -> Certificate:
    """Append a version that was certified in another environment."""
    return recertify(vault, environment=certificate(vault).environment | {"processor": "another"}, **changes)


def digests(vault: Vault) -> dict[str, ServedDigest]:
    return {one.task: one for one in vault.digests.list(vault.models.get(MODEL))}


def predict(service: Service) -> int:
    """The version that answers."""
    headers = {"Content-Type": "image/png"}
    answer = service.client.post(f"/v1/models/{MODEL}/predict", content=png(0, 100), headers=headers)
    answer.raise_for_status()
    return int(answer.json()["version"])


def problems(service: Service) -> list[tuple[str, int]]:
    found = service.client.get(f"/v1/models/{MODEL}").json()["problems"]
    return [(one["code"], one["version"]) for one in found]


def test_a_flipped_bit_refuses_the_swap_and_the_version_before_answers(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(lambda: service.client.get("/readyz").status_code == 200)
    monkeypatch.setattr("service.models.soundness.problems._LONG_SECONDS", 0.1)
    with monkeypatch.context() as patch:
        flip(patch, "high", "loader")
        learn(service.vault, "high", (8, 9))
        wait_until(lambda: problems(service) == [("answers_differ", 3)])
        assert predict(service) == 2
        assert service.client.get("/readyz").status_code == 200
    wait_until(lambda: predict(service) == 3)
    assert problems(service) == []


def test_a_process_that_starts_takes_the_newest_version_that_answers_as_certified(
    learned_settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(monkeypatch, "mid", "loader")
    with running(learned_settings) as service:
        wait_until(lambda: service.client.get("/readyz").status_code == 200)
        assert predict(service) == 1
        assert problems(service) == [("answers_differ", 2)]
        asked = service.client.post(
            f"/v1/models/{MODEL}/predict?version=2", content=png(0, 100), headers={"Content-Type": "image/png"}
        )
        assert (asked.status_code, asked.json()["version"]) == (200, 2)  # that thread's engine is whole


def test_an_older_version_that_answers_otherwise_is_refused_by_name(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(lambda: service.client.get("/readyz").status_code == 200)
    flip(monkeypatch, "low", "older-loader")
    monkeypatch.setattr(answers, "ROTATED", 5)
    asked = service.client.post(
        f"/v1/models/{MODEL}/predict?version=1", content=png(0, 100), headers={"Content-Type": "image/png"}
    )
    assert (asked.status_code, asked.json()["code"]) == (500, "answers_differ")
    assert predict(service) == 2


@pytest.mark.parametrize("task", ["low", "mid"])
def test_every_task_is_compared_once_and_some_again(vault: Vault, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, version = AnswersGuard(vault), loaded(vault)
    guard.require(version)
    asked: list[tuple[list[str], bool]] = []
    true = answers._answered

    def note(memory: Any, tasks: list[str], *, every_shape: bool) -> Any:
        asked.append((tasks, every_shape))
        return true(memory, tasks, every_shape=every_shape)

    monkeypatch.setattr(answers, "_answered", note)
    monkeypatch.setattr(answers, "ROTATED", 1)
    guard.require(version)
    guard.require(version)
    assert asked == [(["mid"], True), (["low"], True)]
    asked.clear()
    AnswersGuard(vault).require(version)
    assert asked == [(["mid"], True), (["low"], False)]
    asked.clear()
    monkeypatch.setattr(answers, "SECONDS", -1.0)
    AnswersGuard(vault).require(version)
    assert asked == [(["mid"], True)]
    monkeypatch.undo()
    flip(monkeypatch, task)
    with pytest.raises(AnswersDiffer, match=task):
        AnswersGuard(vault).require(loaded(vault))
    assert digests(vault) == {}


def test_elsewhere_the_first_is_compared_within_a_bound_and_the_others_with_the_first(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(vault)
    AnswersGuard(vault).require(loaded(vault))
    made = digests(vault)
    assert {name: one.baseline for name, one in made.items()} == {"low": "close", "mid": "close"}
    assert "another" in made["low"].reason
    assert {name: one.logits_sha256 for name, one in made.items()} == certificate(vault).tasks
    AnswersGuard(vault).require(loaded(vault))
    assert digests(vault) == made
    flip(monkeypatch, "low")
    with pytest.raises(AnswersDiffer, match="version 3 did on this kind of machine"):
        AnswersGuard(vault).require(loaded(vault))


@pytest.mark.parametrize("task", ["low", "mid"])
def test_a_task_is_compared_by_whatever_name_it_is_shown(
    vault: Vault, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(vault)
    AnswersGuard(vault).require(loaded(vault))
    made = digests(vault)
    names = {"low": {"name": "small", "labels": {"digit-0": "zero"}}, "mid": {"name": "medium"}}
    vault.log.append(MODEL, loaded(vault).commit.following("rename", names=names))
    AnswersGuard(vault).require(loaded(vault))
    assert digests(vault) == made, "the baseline is that of the task, whatever it is called"
    flip(monkeypatch, task)
    with pytest.raises(AnswersDiffer, match=task):
        AnswersGuard(vault).require(loaded(vault))


def test_elsewhere_a_last_bit_may_differ_the_first_time(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(vault)
    flip(monkeypatch, "low")
    AnswersGuard(vault).require(loaded(vault))
    made, certified = digests(vault), certificate(vault)
    assert made["low"].logits_sha256 != certified.tasks["low"]
    assert made["mid"].logits_sha256 == certified.tasks["mid"]
    monkeypatch.undo()
    with pytest.raises(AnswersDiffer):  # one version never answers first in this and then in that way
        AnswersGuard(vault).require(loaded(vault))


def test_elsewhere_answers_that_are_not_near_are_refused(vault: Vault) -> None:
    model = vault.models.get(MODEL)
    true = vault.answers.get(model, certificate(vault).tasks["low"])
    assert true is not None
    other = (torch.frombuffer(bytearray(true), dtype=torch.float32) * 1.01).numpy().tobytes()
    vault.answers.put(model, other)
    elsewhere(vault, tasks=certificate(vault).tasks | {"low": hashlib.sha256(other).hexdigest()})
    with pytest.raises(AnswersDiffer, match="logits differ by"):
        AnswersGuard(vault).require(loaded(vault))
    assert "low" not in digests(vault)


def test_where_no_answers_are_kept_the_baseline_is_new_and_says_why(service: Service) -> None:
    vault = service.vault
    folder = f"models/{MODEL}/log/{vault.models.get(MODEL).lineage}/answers"
    for path in vault.objects.list(folder):
        vault.objects.delete(path)
    elsewhere(vault)
    vault.events.publish_version(MODEL, 3)
    wait_until(lambda: predict(service) == 3)
    shown = service.client.get(f"/v1/models/{MODEL}/versions/3/certificate").json()["digests"]
    # The tasks were compared when the version before came: with their certificate, in its own environment.
    assert {(one["task"], one["baseline"], one["engine"]) for one in shown} == {
        ("low", "new", "eager-1"),
        ("mid", "new", "eager-1"),
    }
    assert all("are not kept" in one["reason"] for one in shown)


def test_a_certificate_that_names_no_processor_refuses_nobody(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = certificate(vault).environment
    del environment["processor"]
    recertify(vault, environment=environment)
    AnswersGuard(vault).require(loaded(vault))
    assert digests(vault) == {}
    flip(monkeypatch, "low")
    AnswersGuard(vault).require(loaded(vault))
    assert digests(vault)["low"].baseline == "close"


def test_of_those_who_are_first_at_the_same_time_one_counts(vault: Vault) -> None:
    elsewhere(vault)
    AnswersGuard(vault).require(loaded(vault))
    model, first = vault.models.get(MODEL), digests(vault)["low"]
    late = replace(first, logits_sha256="0" * 64)
    assert vault.digests.create(model, late) == first


def test_what_cannot_be_read_keeps_no_version_from_answering(vault: Vault) -> None:
    elsewhere(vault)
    AnswersGuard(vault).require(loaded(vault))
    folder = f"models/{MODEL}/log/{vault.models.get(MODEL).lineage}/digests"
    for path in vault.objects.list(folder):
        vault.objects.put(path, b"{")
    AnswersGuard(vault).require(loaded(vault))
    assert digests(vault) == {}
    vault.objects.put(f"blobs/{loaded(vault).commit.certificate}", b"{")
    AnswersGuard(vault).require(loaded(vault))
