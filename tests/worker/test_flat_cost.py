"""Tests that what a job reads does not grow with a model's tasks, where its method is lazy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from engram.certificate import Certificate, certify, compare, digest, probe_batch
from engram.memory import dump
from engram.methods import registry
from engram.runtime import environment
from service.cli.validator import LearnerValidator
from testing.data import lazy
from testing.data.models import MODEL, create, learn
from vault.commit_log import Commit
from vault.maintenance.check import check
from vault.vault import Vault
from worker.versions.publishing import load_memory
from worker.versions.verification import ROTATED, rotated, verify

PAIRS = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (0, 2), (1, 3), (4, 6), (5, 7), (0, 8)]


@pytest.fixture
def staged(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Vault:
    """A vault with a model whose method is lazy."""
    monkeypatch.setitem(registry._CLASSES, "eidetic", lazy.REGISTERED)
    create(vault, "lazy", recipe=2)
    return vault


@pytest.fixture
def whole(vault: Vault) -> Vault:
    """A vault with a model whose method reads all."""
    create(vault, MODEL, recipe=2)
    return vault


def head(vault: Vault, model: str = "lazy") -> Commit:
    found = vault.log.head(model)
    assert found is not None
    return found


def certificate(vault: Vault, commit: Commit) -> Certificate:
    assert commit.certificate is not None
    return Certificate.from_dict(json.loads(vault.objects.get_blob(commit.certificate)))


def grow(vault: Vault, count: int) -> list[dict[str, Any]]:
    """The learning reports of so many tasks more."""
    reports = []
    for number in range(len(head(vault).tasks), len(head(vault).tasks) + count):
        done = learn(vault, f"task {number}", PAIRS[number], "lazy")
        assert (done.state, done.error) == ("succeeded", None)
        assert done.result is not None
        reports.append(done.result["report"])
    return reports


@contextmanager
def reading(vault: Vault) -> Iterator[list[str]]:
    """The blobs that are read meanwhile."""
    read: list[str] = []
    get = vault.objects.get_blob

    def note(sha: str) -> bytes:
        read.append(sha)
        return get(sha)

    vault.objects.get_blob = note  # type: ignore[method-assign]
    try:
        yield read
    finally:
        vault.objects.get_blob = get  # type: ignore[method-assign]


def test_a_late_task_reads_and_writes_no_more_than_an_early_one(staged: Vault) -> None:
    reports = grow(staged, 7)
    assert reports[-1]["bytes_read"] < 1.5 * reports[1]["bytes_read"]
    assert reports[-1]["bytes_written"] < 1.3 * reports[1]["bytes_written"]
    roles = [blob["role"] for blob in reports[-1]["new_blobs"]]
    assert roles == ["engram", "recogniser", "kept", "kept", "certificate"]
    commit = head(staged)
    stored = [staged.objects.get_blob(sha) for sha in (commit.engrams[-1], commit.recogniser or "", commit.kept[0])]
    assert [blob["bytes"] for blob in reports[-1]["new_blobs"]][:3] == [*map(len, stored)]
    assert reports[-1]["bytes_written"] == sum(blob["bytes"] for blob in reports[-1]["new_blobs"])


def test_only_what_is_needed_is_read_and_nothing_twice(staged: Vault) -> None:
    grow(staged, 5)
    before = head(staged)
    least = rotated(certificate(staged, before))
    with reading(staged) as read:
        (report,) = grow(staged, 1)
    numbers = [int(name.removeprefix("task ")) for name in least]
    needed = {before.engrams[number] for number in (*numbers, 4)}
    assert {sha for sha in read if sha in before.engrams} == needed
    assert {sha for sha in read if sha in before.kept} == {before.kept[0]}
    of_model = [sha for sha in read if sha in (*before.engrams, *before.kept, before.recogniser, before.certificate)]
    assert len(of_model) == len(set(of_model))
    assert report["bytes_read"] == sum(len(staged.objects.get_blob(sha)) for sha in of_model)
    assert head(staged).engrams[:-1] == before.engrams
    assert head(staged).kept[1:-1] == before.kept[1:]


def test_every_task_is_checked_again_in_turn(staged: Vault) -> None:
    grow(staged, 6)
    proof = certificate(staged, head(staged))
    assert [*proof.tasks] == [f"task {number}" for number in range(6)]
    # The new task, the one that was read to learn it, and those whose turn it is.
    assert proof.checked_in == {"task 0": 6, "task 1": 5, "task 2": 6, "task 3": 5, "task 4": 6, "task 5": 6}
    assert list(proof.checked_in.values()).count(6) == 2 + ROTATED
    now = certify(load_memory(staged, staged.models.get("lazy"), head(staged)))
    assert (now.tasks, now.shapes) == (proof.tasks, proof.shapes)
    assert set(proof.shapes["task 0"]) == {"1", "4"}
    assert Certificate.from_dict(proof.to_dict()) == proof
    assert compare(proof, now) == []
    assert check(staged.objects, LearnerValidator(staged.objects), deep=True).problems == []


def certify_otherwise(vault: Vault, **changes: Any) -> None:
    """Append a version with another certificate."""
    changed = replace(certificate(vault, head(vault)), **changes)
    sha = vault.objects.put_blob(json.dumps(changed.to_dict()).encode())
    vault.log.append("lazy", head(vault).following("budget", certificate=sha))


def test_in_another_environment_all_are_checked_again(staged: Vault) -> None:
    grow(staged, 5)
    certify_otherwise(staged, environment={"torch": "0.1"}, tasks={f"task {number}": "0" * 64 for number in range(5)})
    grow(staged, 1)
    proof = certificate(staged, head(staged))
    assert proof.environment == environment(load_memory(staged, staged.models.get("lazy"), head(staged)).device)
    assert certify(load_memory(staged, staged.models.get("lazy"), head(staged))).tasks == proof.tasks
    assert set(proof.checked_in.values()) == {7}


@pytest.mark.parametrize("part", ["tasks", "shapes"])
def test_a_task_that_answers_otherwise_than_certified_stops_learning(staged: Vault, part: str) -> None:
    grow(staged, 4)
    proof = certificate(staged, head(staged))
    (due, *_) = rotated(proof)
    wrong: Any = "0" * 64 if part == "tasks" else {**proof.shapes[due], "4": "0" * 64}
    certify_otherwise(staged, **{part: {**getattr(proof, part), due: wrong}})
    done = learn(staged, "more", (8, 9), "lazy")
    assert (done.state, done.error and done.error["code"]) == ("failed", "retention_violated")
    assert done.error is not None
    assert f"{due} no longer answers as certified for version 5" in done.error["detail"]
    deep = check(staged.objects, LearnerValidator(staged.objects), deep=True).problems
    assert [one.code for one in deep] == ["retention_violated"]


def test_what_is_not_needed_need_not_be_there(staged: Vault) -> None:
    """Whole it has to be for whoever asks for it, and a check of the store says so."""
    grow(staged, 5)
    spared = f"task {({0, 1, 2, 3} - {int(name[5:]) for name in rotated(certificate(staged, head(staged)))}).pop()}"
    sha = head(staged).engrams[int(spared[5:])]
    staged.objects.delete(f"blobs/{sha}")
    grow(staged, 1)
    assert sha in head(staged).engrams
    assert check(staged.objects, LearnerValidator(staged.objects)).problems != []


def test_engrams_that_are_not_those_of_before_are_all_checked(staged: Vault) -> None:
    grow(staged, 4)
    memory = load_memory(staged, staged.models.get("lazy"), head(staged))
    before = certify(memory)
    other = head(staged).following("budget", engrams=("0" * 64, *head(staged).engrams[1:]))
    for named, count in ((head(staged), ROTATED + 1), (other, 4)):
        proof = verify(dump(memory), before, "task 3", 1.0, head=named)
        assert list(proof.checked_in.values()).count(named.version + 1) == count


def test_a_task_of_one_class_is_learned_where_the_method_takes_it(staged: Vault) -> None:
    assert learn(staged, "three", (3,), "lazy").state == "succeeded"
    assert head(staged).tasks[-1]["classes"] == ["digit-3"]
    assert list(certificate(staged, head(staged)).tasks) == ["three"]


def test_a_task_of_one_class_is_refused_by_name_elsewhere(whole: Vault) -> None:
    done = learn(whole, "three", (3,))
    assert done.error == {
        "code": "too_few_classes",
        "detail": "there is one class only, 'digit-3'; a task of the method eidetic by recipe 2 needs at least two",
    }


def test_a_method_that_reads_all_is_checked_whole(whole: Vault) -> None:
    for number, digits in enumerate(PAIRS[:2]):
        done = learn(whole, f"task {number}", digits)
        assert done.result is not None
        report = done.result["report"]
        assert report["bytes_read"] > 0
        assert report["bytes_written"] == sum(blob["bytes"] for blob in report["new_blobs"]) > 0
    proof = certificate(whole, head(whole, MODEL))
    assert proof.checked_in == {"task 0": 2, "task 1": 2}
    assert proof.shapes == {}


def test_staged_answers_are_learned_by_few_of_the_earlier_tasks(vault: Vault) -> None:
    create(vault, "lazy", budget=30.0)
    grow(vault, 9)
    before = head(vault)
    with reading(vault) as read:
        grow(vault, 1)
    engrams = [before.engrams.index(sha) for sha in read if sha in before.engrams]
    kept = [before.kept.index(sha) for sha in read if sha in before.kept]
    networks, profiles = [at for at in engrams[1:] if at % 2], [at for at in engrams[1:] if not at % 2]
    assert len(networks) <= 8, "what it may read, what it gives negatives to, two in turn, and what these read"
    assert len(profiles) <= 6, "of those that it gives negatives to, none to check what they answer"
    assert len(kept) <= 6, "the totals, the first task's, and those of the detectors that it gives negatives to"
    assert len(set(engrams)) == len(engrams)
    proof = certificate(vault, head(vault))
    assert min(proof.checked_in.values()) < 10
    memory = load_memory(vault, vault.models.get("lazy"), head(vault))
    assert certify(memory).tasks == proof.tasks
    memory.observe(probe_batch(memory.definition.input))
    assert certify(memory).shapes == proof.shapes, "when all are in memory, too"
    for task in memory.tasks:
        logits = memory.observe(probe_batch(memory.definition.input), task=task.name).logits(task.name)
        assert digest(logits) == proof.tasks[task.name] == proof.shapes[task.name]["16"]
