"""Tests of evaluations: figures beside a plain reference, differences, and what breaks them off."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from engram.memory import Memory
from engram.recognition.predictions import Prediction
from service.models import loaded
from service.models.changes.renaming import Renaming, rename
from testing.data.digits import pixels, png
from testing.data.models import MODEL, create, learn, worker_settings
from testing.data.models import submit as submit_task
from testing.servers.service import wait_until
from vault.coordination.leases import Leases
from vault.jobs.job import Job
from vault.settings import VaultSettings
from vault.vault import Vault
from worker.attempt import run_attempt
from worker.job_runner import JobRunner
from worker.versions import evaluation

DIGITS = {"low": (0, 1), "mid": (2, 3), "high": (4, 5), "again": (1, 7)}
"""Tasks in the order of their versions; the last one shares a label with the first."""

FOLDERS = {"digit-0": 0, "nought": 0, "small/digit-1": 1, "digit-2": 2}
"""Digits by what a class was learned under, by what is shown, and by both."""

Numbered = Mapping[str, tuple[int, int]]
"""Digit and number of the image at each path."""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Path:
    """A store with a model that has learned these tasks."""
    folder = tmp_path_factory.mktemp("three") / "store"
    with Vault.connect(VaultSettings(store_url=str(folder), redis_url=redis_url)) as vault:
        create(vault)
        for task, digits in DIGITS.items():
            learn(vault, task, digits)
    return folder


@pytest.fixture
def taught(learned: Path, vault_settings: VaultSettings, vault: Vault) -> Vault:
    """A vault of its own with that model."""
    assert vault_settings.store_folder is not None
    shutil.copytree(learned, vault_settings.store_folder, dirs_exist_ok=True)
    return vault


def submit(vault: Vault, files: Mapping[str, bytes], numbers: tuple[int, ...], task: str = "") -> Job:
    packed = BytesIO()
    with ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    path = Path(str(vault.settings.store_folder)).parent / "images.zip"
    path.write_bytes(packed.getvalue())
    stored, lineage = vault.objects.put_file(path), vault.models.get(MODEL).lineage
    return vault.jobs.submit(MODEL, task, stored, {"versions": list(numbers)}, lineage=lineage, kind="evaluate")


def run(vault: Vault, job: Job, **changes: Any) -> Job:
    token = vault.jobs.start_attempt(job.id)
    return run_attempt(vault, job, token, lambda: False, worker_settings(vault, **changes))


def evaluated(vault: Vault, files: Mapping[str, bytes], *numbers: int, task: str = "") -> Any:
    """What a worker finds."""
    done = run(vault, submit(vault, files, numbers, task))
    assert (done.state, done.error) == ("succeeded", None)
    assert done.result is not None
    return done.result["evaluation"]


def encoded(images: Numbered) -> dict[str, bytes]:
    return {path: png(*image) for path, image in images.items()}


def served(vault: Vault, number: int) -> Memory:
    """A version as a service loads it."""
    return loaded.load(vault, vault.models.get(MODEL), vault.log.read(MODEL, number)).memory


def alone(memory: Memory, image: tuple[int, int], task: str | None = None) -> Prediction:
    """The answer for one image by itself."""
    return memory.predict(torch.from_numpy(pixels(*image))[None, None], task)[0]


def test_figures_are_those_of_images_answered_one_by_one(taught: Vault) -> None:
    images = {f"digit-{digit}/{number}.png": (digit, number) for digit in range(8) for number in range(100, 112)}
    # Taken for what they are, unless the task is given.
    images |= {f"digit-1/of-another-{number}.png": (4, number) for number in range(100, 112)}
    found = evaluated(taught, encoded(images), 3)
    (figures,) = found["versions"]
    memory = served(taught, 3)
    label_of = {path: path.partition("/")[0] for path in images}
    task_of = {f"digit-{digit}": task for task, digits in list(DIGITS.items())[:3] for digit in digits}
    answers = {path: alone(memory, image) for path, image in images.items()}
    known = [path for path in images if label_of[path] in task_of]
    right = [path for path in known if answers[path].label == label_of[path]]
    assert (found["images"], figures["images"], figures["version"]) == (108, 84, 3)
    assert figures["accuracy"] == len(right) / 84
    assert figures["unknown"] == sum(answers[path].known is False for path in known)
    aided = {path: alone(memory, images[path], task_of[label_of[path]]).label == label_of[path] for path in known}
    assert figures["accuracy_with_task"] == sum(aided.values()) / 84 > len(right) / 84
    for task in figures["tasks"]:
        mine = [path for path in known if task_of[label_of[path]] == task]
        counted = figures["tasks"][task]
        assert counted["accuracy_with_task"] == sum(aided[path] for path in mine) / len(mine)
        given_to = [answers[path].task for path in mine]
        assert counted["recognised"] == given_to.count(task) / len(mine)
        assert figures["routing"][task] == {one: given_to.count(one) for one in set(given_to)}
        for label in counted["classes"]:
            labels = [answers[path].label for path in mine if label_of[path] == label]
            assert counted["classes"][label]["recall"] == labels.count(label) / len(labels)
            assert figures["confusion"][label] == {one: labels.count(one) for one in set(labels)}
    assert {label: task for task, one in figures["tasks"].items() for label in one["classes"]} == task_of
    strangers = [answers[path].known for path in images if path not in known]
    assert (figures["strangers"]["images"], figures["strangers"]["unknown"]) == (24, strangers.count(False))
    assert set(figures["strangers"]["labels"]) == {"digit-6", "digit-7"}
    assert (found["comparison"], found["unreadable"]["count"]) == (None, 0)


def same(one: Memory, other: Memory, image: tuple[int, int]) -> bool:
    first, second = alone(one, image), alone(other, image)
    return (first.task, first.label, first.known) == (second.task, second.label, second.known)


def test_a_version_is_evaluated_by_the_names_that_it_shows(taught: Vault) -> None:
    shown, _ = rename(taught, MODEL, Renaming("low", "small", {"digit-0": "nought", "digit-1": "digit-4"}))
    images = {f"{folder}/{number}.png": (digit, number) for folder, digit in FOLDERS.items() for number in range(9)}
    found = evaluated(taught, encoded(images), 4, 5)
    assert found["comparison"]["differences"] == 0, "a name alone makes no difference"
    before, after = found["versions"]
    assert (shown.version, list(before["tasks"]), list(after["tasks"])) == (5, ["low", "mid"], ["small", "mid"])
    assert list(after["tasks"]["small"]["classes"]) == ["nought", "digit-4"]
    assert [one["images"] for one in before["tasks"]["low"]["classes"].values()] == [18, 9]
    assert [one["images"] for one in after["tasks"]["small"]["classes"].values()] == [18, 9]
    assert evaluated(taught, encoded(images), 5, task="low")["versions"][0]["tasks"].keys() == {"small"}


def test_two_versions_that_differ_in_seven_answers_list_those_seven(taught: Vault) -> None:
    before, after = served(taught, 2), served(taught, 3)
    candidates = {f"digit-{digit}/{number}.png": (digit, number) for digit in range(6) for number in range(60, 84)}
    unchanged = {path: image for path, image in candidates.items() if same(before, after, image)}
    changed = {path: image for path, image in candidates.items() if path not in unchanged}
    assert len(unchanged) > 50
    seven = dict(sorted(changed.items())[-7:])
    found = evaluated(taught, encoded({**unchanged, **seven}), 2, 3)
    comparison = found["comparison"]
    assert (comparison["differences"], comparison["cut"]) == (7, False)
    assert {one["image"] for one in comparison["listed"]} == set(seven)
    for one in comparison["listed"]:
        for memory, told in zip((before, after), one["answers"], strict=True):
            answer = alone(memory, seven[one["image"]])
            assert (told["task"], told["label"], told["known"]) == (answer.task, answer.label, answer.known)
    old, new = found["versions"]
    assert (old["version"], new["version"]) == (2, 3)
    assert "high" not in old["tasks"]
    assert old["strangers"]["images"] == sum(image[0] > 3 for image in {**unchanged, **seven}.values())
    assert new["strangers"]["images"] == 0


def test_other_bits_of_the_logits_are_a_difference(taught: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = served(taught, 2), served(taught, 3)
    candidates = {f"digit-{digit}/{number}.png": (digit, number) for digit in (0, 2) for number in range(6)}
    images = {path: image for path, image in candidates.items() if same(before, after, image)}
    assert len(images) > 6
    plain = evaluation.AnsweredBatch.logits
    asked: list[int] = []

    def shaken(self: evaluation.AnsweredBatch, task: str, rows: Any) -> torch.Tensor:
        asked.append(1)
        return plain(self, task, rows) + (1e-6 if len(asked) == 1 else 0.0)

    monkeypatch.setattr(evaluation.AnsweredBatch, "logits", shaken)
    comparison = evaluated(taught, encoded(images), 2, 3)["comparison"]
    assert comparison["by"] == {"label": 0, "task": 0, "known": 0, "logits": comparison["differences"]}
    assert 0 < comparison["differences"] < len(images)


def test_a_task_that_is_named_holds_for_all_images(taught: Vault) -> None:
    found = evaluated(taught, encoded({"high/digit-1/a.png": (1, 9), "digit-3/b.png": (3, 9)}), 3, task="low")
    (figures,) = found["versions"]
    assert (found["task"], figures["images"], figures["strangers"]["images"]) == ("low", 1, 1)


@pytest.mark.parametrize(
    ("files", "numbers", "task", "code"),
    [
        ({"digit-0/a.png": b"none"}, (3,), "", "too_many_unreadable_images"),
        ({"digit-0/a.png": png(0, 0)}, (0,), "", "nothing_learned"),
        ({"digit-0/a.png": png(0, 0)}, (3,), "nowhere", "unknown_task"),
    ],
)
def test_what_cannot_be_evaluated_fails_with_its_code(
    taught: Vault, files: dict[str, bytes], numbers: tuple[int, ...], task: str, code: str
) -> None:
    done = run(taught, submit(taught, files, numbers, task))
    assert (done.state, done.error and done.error["code"]) == ("failed", code)
    assert taught.objects.list("data") == []


def test_a_label_of_two_tasks_is_refused_unless_the_folder_says_which(taught: Vault) -> None:
    refused = run(taught, submit(taught, {"digit-1/a.png": png(1, 0)}, (4,)))
    assert refused.error is not None
    assert refused.error["code"] == "ambiguous_label"
    (figures,) = evaluated(taught, {"again/digit-1/a.png": png(1, 0), "low/digit-1/b.png": png(1, 1)}, 4)["versions"]
    assert {task: one["images"] for task, one in figures["tasks"].items()} == {"low": 1, "again": 1}
    assert set(figures["confusion"]) == {"again/digit-1", "low/digit-1"}


def some(count: int = 130) -> dict[str, bytes]:
    return encoded({f"digit-{number % 6}/{number}.png": (number % 6, number // 6) for number in range(count)})


def test_workers_evaluate_a_model_that_is_being_learned(taught: Vault) -> None:
    jobs = [submit(taught, some(20), (3,)) for _ in range(2)]
    held = Leases(taught.redis, 600).acquire(MODEL, "a learner", "another job")
    assert held is not None
    JobRunner(taught, worker_settings(taught)).work(MODEL)
    assert [taught.jobs.get(job.id).state for job in jobs] == ["succeeded"] * 2
    assert taught.leases.holder(MODEL) == held.holder
    held.release()


def test_a_task_is_learned_amid_it(taught: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(taught, some(70), (3,))
    tasks: list[Job] = []
    answer = evaluation.EvaluatedVersion.answer

    def answering(*words: Any) -> Any:
        if not tasks:
            tasks.append(submit_task(taught, "new", (8, 9)))
        return answer(*words)

    monkeypatch.setattr(evaluation.EvaluatedVersion, "answer", answering)
    runner = JobRunner(taught, worker_settings(taught, reconcile_seconds=0.001))
    runner.work(MODEL)
    learned, done = taught.jobs.get(tasks[0].id), taught.jobs.get(job.id)
    assert (learned.state, done.state, done.attempts) == ("succeeded", "succeeded", 1)
    assert str(learned.finished_at) < str(done.finished_at)
    assert done.result == {"evaluation": evaluated(taught, some(70), 3)}


def test_one_that_a_worker_died_at_is_done_again(taught: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(taught, some(), (2, 3))
    whole = evaluated(taught, some(), 2, 3)
    lease = Leases(taught.redis, 600).acquire(job.lease, "worker that dies", job.id)
    assert lease is not None

    class Died(BaseException):
        """The process is gone."""

    answer = evaluation.EvaluatedVersion.answer
    calls = iter(range(3))

    def dying(*words: Any) -> Any:
        if next(calls, None) is None:
            raise Died
        return answer(*words)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation.EvaluatedVersion, "answer", dying)
        with pytest.raises(Died):
            run(taught, job)
    runner = JobRunner(taught, worker_settings(taught))
    runner.work(MODEL)
    assert taught.jobs.get(job.id).state == "running", "its lease has not run out"
    lease.release()
    runner.work(MODEL)
    done = taught.jobs.get(job.id)
    assert (done.state, done.attempts) == ("succeeded", 2)
    assert done.result == {"evaluation": whole}
    assert taught.objects.list("data") == []


def test_it_can_be_cancelled_and_left_to_another(taught: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(taught, some(70), (3,))
    answer, entered, go_on = evaluation.EvaluatedVersion.answer, threading.Event(), threading.Event()

    def waiting(*words: Any) -> Any:
        entered.set()
        assert go_on.wait(60)
        return answer(*words)

    monkeypatch.setattr(evaluation.EvaluatedVersion, "answer", waiting)
    runner = JobRunner(taught, worker_settings(taught, cancel_seconds=0.01))
    working = threading.Thread(target=runner.work, args=(MODEL,))
    working.start()
    assert entered.wait(60)
    wait_until(lambda: taught.jobs.get(job.id).phase == "evaluating")
    runner.stopping.set()
    go_on.set()
    working.join(60)
    assert (taught.jobs.get(job.id).state, taught.jobs.attempts(job.id)[0].released) == ("queued", True)

    entered.clear()
    go_on.clear()
    other = JobRunner(taught, worker_settings(taught, cancel_seconds=0.01))
    working = threading.Thread(target=other.work, args=(MODEL,))
    working.start()
    assert entered.wait(60)
    taught.jobs.request_cancel(job.id)
    go_on.set()
    working.join(60)
    done = taught.jobs.get(job.id)
    assert (done.state, done.result) == ("cancelled", None)
    assert taught.objects.list("data") == []


def test_of_a_model_that_was_made_anew_nothing_is_evaluated(taught: Vault) -> None:
    job = submit(taught, some(6), (3,))
    taught.models.delete(MODEL)
    create(taught)
    assert (run(taught, job).error or {})["code"] == "unknown_model"
