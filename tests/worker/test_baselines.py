"""Tests of what a worker compares old answers with: bytes, the certified logits, or nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engram.certificate import Certificate, certify, disagreement
from engram.errors import RetentionViolated
from engram.runtime import has_bf16
from service.cli.validator import LearnerValidator
from testing.data.models import MODEL, create, learn
from vault.commit_log import Commit
from vault.maintenance.validator import AnswersComparison
from vault.settings import VaultSettings
from vault.vault import Vault
from worker.versions.blobs import JobBlobs
from worker.versions.publishing import load_memory
from worker.versions.verification import before_learning


def head(vault: Vault) -> Commit:
    found = vault.log.head(MODEL)
    assert found is not None
    return found


def certificate(vault: Vault) -> Certificate:
    return Certificate.from_dict(json.loads(vault.objects.get_blob(str(head(vault).certificate))))


def recertify(vault: Vault, **changes: Any) -> None:
    """Append a version whose certificate says something else."""
    found = replace(certificate(vault), **changes)
    sha = vault.objects.put_blob(json.dumps(found.to_dict()).encode())
    vault.log.append(MODEL, head(vault).following("budget", certificate=sha))


def elsewhere(vault: Vault, **changes: Any) -> None:
    recertify(vault, environment=certificate(vault).environment | {"torch": "0.1"}, **changes)


def kept(vault: Vault) -> Callable[[str], bytes | None]:
    model = vault.models.get(MODEL)
    return lambda sha: vault.answers.get(model, sha)


def before(vault: Vault) -> Certificate:
    memory = load_memory(vault, vault.models.get(MODEL), head(vault))
    return before_learning(JobBlobs(vault.objects), head(vault), memory, kept(vault))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Path:
    """A store with one task; to be copied."""
    folder = tmp_path_factory.mktemp("one") / "store"
    with Vault.connect(VaultSettings(store_url=str(folder), redis_url=redis_url)) as vault:
        create(vault)
        learn(vault, "low", (0, 1))
    return folder


@pytest.fixture
def learned(store: Path, vault_settings: VaultSettings) -> Vault:
    """A vault with one task."""
    assert vault_settings.store_folder is not None
    shutil.copytree(store, vault_settings.store_folder)
    return Vault.connect(vault_settings)


def test_the_logits_of_every_certified_task_are_kept_and_named_by_their_digests(learned: Vault) -> None:
    assert (certificate(learned).baseline, certificate(learned).engine) == ("first", "eager-1")
    learn(learned, "mid", (2, 3))
    proof = certificate(learned)
    assert (proof.baseline, proof.reason) == ("certified", None)
    memory = load_memory(learned, learned.models.get(MODEL), head(learned))
    now = certify(memory)
    assert {task: kept(learned)(sha) for task, sha in proof.tasks.items()} == now.logits
    validator = LearnerValidator(learned.objects)
    assert validator.version(learned.models.get(MODEL), head(learned)) == AnswersComparison()
    learned.delete_model(MODEL)
    assert learned.objects.list("models") == []


def test_in_another_environment_the_logits_are_compared_and_the_certificate_says_so(learned: Vault) -> None:
    elsewhere(learned)
    learn(learned, "mid", (2, 3))
    proof = certificate(learned)
    assert proof.baseline == "close"
    assert proof.reason is not None
    assert "torch" in proof.reason
    assert "0.1" in proof.reason
    learn(learned, "high", (8, 9))
    assert (certificate(learned).baseline, certificate(learned).reason) == ("certified", None)


def test_where_they_are_not_kept_the_baseline_is_new_and_says_why(learned: Vault) -> None:
    for path in learned.objects.list(f"models/{MODEL}"):
        if "/answers/" in path:
            learned.objects.delete(path)
    elsewhere(learned)
    found = before(learned)
    assert found.baseline == "new"
    assert found.reason is not None
    assert "are not kept" in found.reason
    compared = LearnerValidator(learned.objects).version(learned.models.get(MODEL), head(learned))
    assert (compared.changed, compared.near, compared.elsewhere is None) == ((), False, False)


def test_answers_that_are_not_near_stop_learning(learned: Vault) -> None:
    true = kept(learned)(certificate(learned).tasks["low"])
    assert true is not None
    other = (torch.frombuffer(bytearray(true), dtype=torch.float32) * 1.01).numpy().tobytes()
    learned.answers.put(learned.models.get(MODEL), other)
    elsewhere(learned, tasks={"low": hashlib.sha256(other).hexdigest()})
    with pytest.raises(RetentionViolated, match="logits differ by"):
        before(learned)
    compared = LearnerValidator(learned.objects).version(learned.models.get(MODEL), head(learned))
    assert (compared.changed, compared.near) == (("low",), False)


def test_a_certificate_that_names_no_processor_may_be_of_another_one(learned: Vault) -> None:
    environment = certificate(learned).environment
    assert environment.pop("processor")
    recertify(learned, environment=environment, baseline=None)
    assert before(learned).baseline == "certified"
    recertify(learned, tasks={"low": "0" * 64})
    found = before(learned)
    assert found.baseline == "new"
    assert found.reason is not None
    assert "does not name its processor" in found.reason
    compared = LearnerValidator(learned.objects).version(learned.models.get(MODEL), head(learned))
    assert (compared.changed, compared.near, compared.elsewhere is None) == ((), False, False)


def test_a_certificate_that_names_its_processor_is_of_this_one(learned: Vault) -> None:
    recertify(learned, tasks={"low": "0" * 64})
    with pytest.raises(RetentionViolated, match="as certified"):
        before(learned)
    compared = LearnerValidator(learned.objects).version(learned.models.get(MODEL), head(learned))
    assert compared.changed == ("low",)


def test_another_engine_is_another_environment(learned: Vault) -> None:
    recertify(learned, engine="other-1")
    found = before(learned)
    assert found.baseline == "close"
    assert found.reason is not None
    assert "engine eager-1 instead of other-1" in found.reason


@pytest.mark.parametrize(
    ("here", "agree"),
    [
        ([1000.0, 1.0], True),
        ([1000.9, 0.1], True),
        ([1001.1, 1.0], False),
        ([1000.0, float("nan")], False),
        ([1000.0], False),
    ],
)
def test_the_bound(here: list[float], agree: bool) -> None:
    certified = torch.tensor([1000.0, 1.0]).numpy().tobytes()
    assert (disagreement(certified, torch.tensor(here).numpy().tobytes()) is None) == agree


def test_the_bound_of_small_logits() -> None:
    zero, small, large = (torch.tensor([value]).numpy().tobytes() for value in (0.0, 0.0009, 0.0011))
    assert disagreement(zero, small) is None
    assert disagreement(zero, large) is not None


@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="this processor has no bf16")
def test_certificates_name_for_ever_what_was_learned_in_mixed_precision(ready: Vault) -> None:
    told = []
    for number, (task, mixed) in enumerate((("low", True), ("mid", False), ("high", False)), 1):
        learn(ready, task, (2 * number, 2 * number + 1), mixed_precision=mixed)
        told.append(certificate(ready))
        if task == "mid":
            elsewhere(ready)
    assert [list(each.tasks) for each in told] == [["low"], ["low", "mid"], ["low", "mid", "high"]]
    assert [each.mixed_precision for each in told] == [{"low"}] * 3
    assert [each.baseline for each in told] == ["first", "certified", "close"]
