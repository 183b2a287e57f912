"""Tests of learning on a model whose decoder changed: by a commit, a release, or its libraries."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from engram.certificate import Certificate, certify
from engram.config.options import LearnOptions
from engram.errors import RetentionViolated, UnsupportedFormat
from engram.memory import dump
from service.cli.validator import LearnerValidator
from service.models import versions
from testing.data.digits import QUICK
from testing.data.models import MODEL, examples, learn, submit, worker_settings
from vault.commit_log import Commit
from vault.jobs.job import Job
from vault.maintenance.check import check
from vault.vault import Vault
from worker.attempt import run_attempt
from worker.interruption import ModelChanged
from worker.versions import publishing
from worker.versions.blobs import JobBlobs
from worker.versions.publishing import load_memory
from worker.versions.verification import before_learning, verify

ONE = {"decoder": 1}
GREEN = {"decoder": 2, "background": "#00ff00"}


def head(vault: Vault) -> Commit:
    found = vault.log.head(MODEL)
    assert found is not None
    return found


def certificate(vault: Vault, commit: Commit) -> dict[str, Any]:
    assert commit.certificate is not None
    found: dict[str, Any] = json.loads(vault.objects.get_blob(commit.certificate))
    return found


def certify_otherwise(vault: Vault, **decoder: Any) -> Commit:
    """Append a version whose certificate says something else of the decoder."""
    found = certificate(vault, head(vault))
    changed = json.dumps({**found, "decoder": {**found["decoder"], **decoder}}).encode()
    vault.log.append(MODEL, head(vault).following("budget", certificate=vault.objects.put_blob(changed)))
    return head(vault)


def published(vault: Vault, job: Job) -> publishing.Publication:
    """What an attempt at `job` has in its hands before it publishes."""
    found = head(vault)
    memory = load_memory(vault, vault.models.get(MODEL), found)
    report = memory.learn(job.task, examples((0, 1)), LearnOptions.model_validate(QUICK))
    token, classes = vault.jobs.start_attempt(job.id), ("digit-0", "digit-1")
    proof = certify(memory).to_dict()
    return publishing.Publication(job, token, found, dump(memory), classes, proof, report.to_dict())


def test_what_was_learned_from_images_decoded_otherwise_is_learned_anew(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1))
    publication = published(ready, job)
    versions.change(ready, MODEL, None, GREEN)
    with pytest.raises(ModelChanged, match="version 1 of digits decodes images otherwise"):
        publication.publish(ready)
    assert head(ready).version == 1
    token = ready.jobs.start_attempt(job.id)
    assert run_attempt(ready, job, token, lambda: False, worker_settings(ready)).state == "succeeded"
    assert (head(ready).version, head(ready).decoding) == (2, GREEN)


def test_what_was_learned_fits_again_once_the_decoder_is_back(ready: Vault) -> None:
    publication = published(ready, submit(ready, "low", (0, 1)))
    versions.change(ready, MODEL, None, GREEN)
    versions.change(ready, MODEL, None, {"background": None})
    assert publication.publish(ready).version == 3


def test_every_version_is_loaded_with_its_decoder(ready: Vault) -> None:
    model = ready.models.get(MODEL)
    versions.change(ready, MODEL, None, ONE)
    learn(ready, "low", (0, 1))
    versions.change(ready, MODEL, None, GREEN)
    decodings = [load_memory(ready, model, commit).definition.decoding for commit in ready.log.list(MODEL)]
    one = {"decoder": 1, "background": None}
    assert decodings == [{"decoder": 2, "background": None}, one, one, GREEN]
    assert certificate(ready, ready.log.read(MODEL, 2))["decoder"]["number"] == 1


def test_the_certificate_of_a_version_by_another_decoder_is_of_that_decoder(ready: Vault) -> None:
    learn(ready, "low", (0, 1))
    before = certificate(ready, head(ready))
    commit, new = versions.change(ready, MODEL, None, GREEN)
    after = certificate(ready, commit)
    assert (new, commit.kind) == (True, "decoder")
    own = {"decoder": None, "subject": before["subject"] | {"after": ready.log.read(MODEL, 1).certificate}}
    assert {**after, "decoder": None} == {**before, **own}
    assert (after["decoder"]["number"], after["decoder"]["background"]) == (2, "#00ff00")
    assert after["decoder"]["sha256"] != before["decoder"]["sha256"]
    versions.activate(ready, MODEL, 1)
    assert certificate(ready, head(ready)) == before
    assert check(ready.objects, LearnerValidator(ready.objects), deep=True).problems == []


def test_a_decoder_of_a_later_release_fails_the_job_at_once(ready: Vault) -> None:
    ready.log.append(MODEL, head(ready).following("decoder", decoding={"decoder": 3, "background": None}))
    done = learn(ready, "low", (0, 1))
    assert (done.state, done.error and done.error["code"]) == ("failed", "unsupported_format")
    with pytest.raises(UnsupportedFormat):
        load_memory(ready, ready.models.get(MODEL), head(ready))
    (problem,) = check(ready.objects, LearnerValidator(ready.objects)).problems
    assert (problem.code, problem.object.endswith("00000001.json")) == ("unsupported_format", True)


def test_a_definition_of_a_later_release_fails_the_job_at_once(ready: Vault) -> None:
    made = ready.models.get(MODEL)
    later = ready.models.create("later", {**made.definition, "recipe": 4})
    content = {name: getattr(head(ready), name) for name in ("engrams", "recogniser", "kept", "budget")}
    ready.log.append("later", Commit.first(later, **content))
    done = learn(ready, "low", (0, 1), "later")
    assert (done.state, done.error and done.error["code"]) == ("failed", "unsupported_format")
    assert done.error is not None
    assert "recipe" in done.error["detail"]


def test_other_pixels_by_the_same_libraries_stop_learning(ready: Vault) -> None:
    learn(ready, "low", (0, 1))
    commit = certify_otherwise(ready, sha256="0" * 64)
    memory = load_memory(ready, ready.models.get(MODEL), commit)
    with pytest.raises(RetentionViolated, match=r"Decoder 2 no longer gives the pixels .* the libraries are the same"):
        before_learning(JobBlobs(ready.objects), commit, memory)
    done = learn(ready, "mid", (2, 3))
    assert (done.state, done.error and done.error["code"]) == ("failed", "retention_violated")
    found = check(ready.objects, LearnerValidator(ready.objects))
    assert [(one.object, one.code) for one in found.problems] == [(f"blobs/{commit.certificate}", "retention_violated")]


def test_other_pixels_by_other_libraries_are_said_and_stop_nothing(
    ready: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    learn(ready, "low", (0, 1))
    then = {"pillow": {"pillow": "1.0"}, "sha256": "0" * 64}
    commit = certify_otherwise(ready, **then)
    found = check(ready.objects, LearnerValidator(ready.objects))
    assert (found.whole, [(one.object, one.code) for one in found.warnings]) == (
        True,
        [(f"models/{MODEL}/model.json", "decoder_changed")],
    )
    assert "pillow 1.0 became" in found.warnings[0].detail
    assert "(of version 2)" in found.warnings[0].detail
    with caplog.at_level(logging.WARNING, "engram.worker"):
        assert learn(ready, "mid", (2, 3)).state == "succeeded"
    assert any("Decoder 2 no longer gives" in line for line in caplog.messages)
    assert certificate(ready, head(ready))["decoder"]["before"] == then
    learn(ready, "high", (4, 5))
    assert "before" not in certificate(ready, head(ready))["decoder"]
    assert commit.version == 2


def test_the_same_pixels_by_other_libraries_are_nothing_to_speak_of(ready: Vault) -> None:
    learn(ready, "low", (0, 1))
    commit = certify_otherwise(ready, pillow={"pillow": "1.0"})
    memory = load_memory(ready, ready.models.get(MODEL), commit)
    before = before_learning(JobBlobs(ready.objects), commit, memory)
    assert before.decoder is not None
    assert before.decoder.before is None
    assert check(ready.objects, LearnerValidator(ready.objects)).warnings == []


def test_a_certificate_from_before_decoders_had_numbers_is_built_upon(ready: Vault) -> None:
    learn(ready, "low", (0, 1))
    found = certificate(ready, head(ready))
    del found["decoder"]
    sha = ready.objects.put_blob(json.dumps(found).encode())
    ready.log.append(MODEL, head(ready).following("budget", certificate=sha))
    memory = load_memory(ready, ready.models.get(MODEL), head(ready))
    proof = verify(dump(memory), before_learning(JobBlobs(ready.objects), head(ready), memory), "low", 1.0)
    assert proof.decoder == certify(memory).decoder
    assert verify(dump(memory), Certificate.from_dict(found), "low", 1.0).decoder == proof.decoder
    assert check(ready.objects, LearnerValidator(ready.objects), deep=True).problems == []
