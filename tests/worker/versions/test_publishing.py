"""Tests of a worker that stands still while it publishes and another takes over."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from engram import Definition
from engram.checkpointing.pieces import bytes_of, hash_of
from engram.memory import dump
from service.models import backbones, versions
from service.models.backbones import BackboneForm
from testing.data import networks
from testing.data.models import MODEL, submit, worker_settings
from vault.classes.names import named_tasks
from vault.errors import JobOver, LeaseLost
from vault.jobs.job import Job
from vault.vault import Vault
from worker.attempt import run_attempt
from worker.interruption import ModelChanged
from worker.job_runner import JobRunner
from worker.outcome import find
from worker.versions.blobs import JobBlobs
from worker.versions.publishing import load_memory


class Late:
    """An attempt that stands still right before (`checked` false) or after it has found that it may publish."""

    def __init__(self, vault: Vault, job: Job, checked: bool) -> None:
        self._vault = Vault.connect(vault.settings)
        self._job = job
        self._go_on = threading.Event()
        self.stands = threading.Event()
        check = self._vault.jobs.check_token

        def check_and_stand(job_id: str, token: int) -> None:
            if checked:
                check(job_id, token)
            self.stands.set()
            assert self._go_on.wait(120)
            if not checked:
                check(job_id, token)
            self._vault.jobs.check_token = check  # type: ignore[method-assign]

        self._vault.jobs.check_token = check_and_stand  # type: ignore[method-assign]

    def run(self) -> Job:
        """The whole attempt."""
        with self._vault as vault:
            token = vault.jobs.start_attempt(self._job.id, "late")
            return run_attempt(vault, self._job, token, lambda: False, worker_settings(vault))

    def go_on(self) -> None:
        self._go_on.set()


@contextmanager
def standing(vault: Vault, job: Job, checked: bool) -> Iterator[tuple[Late, Future[Job]]]:
    """A late attempt that stands still, and what it will come to."""
    late = Late(vault, job, checked)
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(late.run)
        try:
            assert late.stands.wait(120)
            yield late, outcome
        finally:
            late.go_on()


def take_over(vault: Vault, job: Job) -> Job:
    """Another attempt, which nothing keeps up."""
    token = vault.jobs.start_attempt(job.id, "other")
    return run_attempt(vault, job, token, lambda: False, worker_settings(vault))


def records(vault: Vault, job: Job) -> dict[str, bytes]:
    """Everything that a late attempt must not change: the log, and what is written of the job."""
    paths = [*vault.objects.list("models"), *vault.objects.list(f"jobs/{job.id}"), *vault.objects.list("data")]
    return {path: vault.objects.get(path) for path in paths}


@pytest.mark.parametrize("checked", [False, True])
def test_the_late_one_changes_nothing(ready: Vault, checked: bool) -> None:
    job = submit(ready, "a", (0, 1))
    with standing(ready, job, checked) as (late, outcome):
        done = take_over(ready, job)
        assert done.state == "succeeded"
        before = records(ready, job)
        late.go_on()
        with pytest.raises((LeaseLost, JobOver)):
            outcome.result(120)
    assert records(ready, job) == before
    assert ready.log.numbers(MODEL) == [0, 1]
    # Blobs that it has written late are nobody's, and harm nobody when they go.
    ready.sweep()
    head = ready.log.head(MODEL)
    assert head is not None
    assert [task.name for task in load_memory(ready, ready.models.get(MODEL), head).tasks] == ["a"]


@pytest.mark.parametrize("checked", [False, True])
def test_the_late_one_does_not_publish_for_a_job_that_was_cancelled_meanwhile(ready: Vault, checked: bool) -> None:
    job = submit(ready, "a", (0, 1))
    with standing(ready, job, checked) as (late, outcome):
        ready.jobs.request_cancel(job.id)
        assert take_over(ready, job).state == "cancelled"
        before = records(ready, job)
        late.go_on()
        with pytest.raises((LeaseLost, JobOver)):
            outcome.result(120)
    assert records(ready, job) == before
    assert ready.log.numbers(MODEL) == [0]


def test_the_late_one_is_not_misled_by_versions_that_came_later(ready: Vault) -> None:
    job = submit(ready, "a", (0, 1))
    with standing(ready, job, True) as (late, outcome):
        assert take_over(ready, job).state == "succeeded"
        versions.activate(ready, MODEL, 0, allow_empty=True)  # the head is made of the same as when it learned
        late.go_on()
        with pytest.raises(LeaseLost):
            outcome.result(120)
    assert [commit.job for commit in ready.log.list(MODEL)] == [None, job.id, None]


def test_a_late_one_that_is_still_first_publishes_for_both(ready: Vault) -> None:
    """It was allowed to publish, and nobody else has: then that is the publication, and the other one finds it."""
    job = submit(ready, "a", (0, 1))
    with standing(ready, job, True) as (late, outcome), standing(ready, job, True) as (other, done):
        late.go_on()
        with pytest.raises(LeaseLost):
            outcome.result(120)
        assert not ready.jobs.get(job.id).over
        other.go_on()
        assert done.result(120).result == {"version": 1, "task": "a", "report": report(ready)}
    commits = ready.log.list(MODEL)
    assert [(commit.job, commit.token) for commit in commits] == [(None, None), (job.id, 1)]


def show(vault: Vault, names: dict[str, object]) -> None:
    """Somebody gives tasks other names."""
    head = vault.log.head(MODEL)
    assert head is not None
    vault.log.append(MODEL, head.following("rename", names=names))


def test_what_was_renamed_meanwhile_keeps_its_new_name(ready: Vault) -> None:
    assert take_over(ready, submit(ready, "a", (0, 1))).state == "succeeded"
    job = submit(ready, "b", (2, 3))
    with standing(ready, job, True) as (late, outcome):
        show(ready, {"a": {"name": "c"}})
        late.go_on()
        assert outcome.result(120).result == {"version": 3, "task": "b", "report": report(ready)}
    head = ready.log.head(MODEL)
    assert head is not None
    assert [(one.name, one.learned_name) for one in named_tasks(head)] == [("c", "a"), ("b", "b")]


def test_a_name_that_another_task_was_given_meanwhile_is_not_learned(ready: Vault) -> None:
    assert take_over(ready, submit(ready, "a", (0, 1))).state == "succeeded"
    job = submit(ready, "b", (2, 3))
    with standing(ready, job, True) as (late, outcome):
        show(ready, {"a": {"name": "b"}})
        late.go_on()
        with pytest.raises(ModelChanged, match="shows another task as 'b'"):
            outcome.result(120)
    assert take_over(ready, job).error == {
        "code": "task_exists",
        "detail": "the model already has a task 'b', which was learned under another name",
    }
    assert ready.log.numbers(MODEL) == [0, 1, 2]


def report(vault: Vault) -> object:
    head = vault.log.head(MODEL)
    assert head is not None
    assert head.report is not None
    return json.loads(vault.objects.get_blob(head.report))


def died_before_its_result(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job whose worker was killed when it had published."""
    job = submit(vault, "a", (0, 1))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vault.jobs, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            take_over(vault, job)
    assert find(vault, job) is not None
    assert not vault.jobs.get(job.id).over
    return job


Ending = Callable[[Vault, Job], None]


@pytest.mark.parametrize(
    "ending",
    [
        lambda vault, job: None,
        lambda vault, job: vault.jobs.request_cancel(job.id),
        lambda vault, job: [vault.jobs.start_attempt(job.id) for _ in range(3)],
    ],
    ids=["resumed", "cancelled", "given up"],
)
def test_what_was_published_has_succeeded(ready: Vault, ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    job = died_before_its_result(ready, monkeypatch)
    ending(ready, job)
    JobRunner(ready, worker_settings(ready)).work(MODEL)
    done = ready.jobs.get(job.id)
    assert (done.state, done.error) == ("succeeded", None)
    assert (done.result or {})["version"] == 1
    assert ready.log.numbers(MODEL) == [0, 1]


def test_a_report_that_is_gone_keeps_no_job_from_its_end(ready: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    job = died_before_its_result(ready, monkeypatch)
    commit = find(ready, job)
    assert commit is not None
    ready.objects.delete(f"blobs/{commit.report}")
    JobRunner(ready, worker_settings(ready)).work(MODEL)
    assert ready.jobs.get(job.id).result == {"version": 1, "task": "a", "report": None}


def test_a_job_does_not_keep_the_weights_of_networks_beside_the_networks(vault: Vault, tmp_path: Path) -> None:
    (file := tmp_path / "small.safetensors").write_bytes(networks.weights())
    form = BackboneForm(name="small", architecture=networks.ARCHITECTURE, config={"size": networks.SIZE})
    backbones.add(vault, form, file)
    commons = {"kind": "pretrained", "backbone": "small"}
    versions.create(vault, "over", Definition.model_validate({"commons": commons}))
    head = vault.log.head("over")
    assert head is not None
    blobs = JobBlobs(vault.objects)
    memory = load_memory(vault, vault.models.get("over"), head, blobs)
    (weights,) = (piece for piece in dump(memory).engrams if hash_of(piece) in head.backbones)
    before = blobs.bytes_read
    assert bytes_of(weights) == bytes_of(weights) == networks.weights()
    assert blobs.bytes_read - before == 2 * len(networks.weights())
