"""Tests of interrupted learning, which ends with the same bytes as undisturbed learning."""

from __future__ import annotations

import logging
import random
from functools import cache, partial

import pytest
import torch

from engram import Examples, LearnOptions, Memory
from engram.checkpointing import pytree
from engram.checkpointing.checkpoints import Checkpoint
from engram.checkpointing.journal import Journal
from engram.checkpointing.progress import Progress
from engram.errors import DamagedSnapshot
from engram.memory import dump
from engram.snapshot import Parts
from engram.training.report import LearningReport
from testing.data.checkpoints import InMemory, Killed, dying
from testing.data.patterns import bars, definition
from tests.engram.methods.test_methods import METHODS, SLOWLY, again, parts_of

LONGER = LearnOptions(epochs=2, patience=2, rounds=2, recovery_epochs=1, tolerance=0.1, batch_size=16)


def learn(parts: Parts, checkpoints: InMemory | None, options: LearnOptions = LONGER) -> tuple[Parts, LearningReport]:
    memory = again(parts)
    report = memory.learn("task 2", bars(2), options, checkpoints=checkpoints)
    return dump(memory), report


@cache
def undisturbed(name: str) -> tuple[Parts, LearningReport]:
    return learn(parts_of(name), None)


def asks(name: str) -> int:
    """How often learning asks whether to stop."""
    count = 0

    def ask() -> bool:
        nonlocal count
        count += 1
        return False

    again(parts_of(name)).learn("task 2", bars(2), LONGER, cancel=ask)
    return count


@pytest.mark.parametrize("name", SLOWLY)
def test_checkpoints_change_nothing(name: str) -> None:
    checkpoints = InMemory(every=1 if name in METHODS else 3)
    learned, report = learn(parts_of(name), checkpoints)
    assert checkpoints.saved > 3
    assert learned == undisturbed(name)[0]
    assert report.resumed == 0


@pytest.mark.parametrize("name", SLOWLY)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(name: str) -> None:
    drawn, total = random.Random(name), asks(name)
    checkpoints = InMemory(every=drawn.choice([1, 2, 5]))
    for _ in range(2):
        after = dying(drawn.randint(total // 10, total // 3))
        with pytest.raises(Killed):
            again(parts_of(name)).learn("task 2", bars(2), LONGER, checkpoints=checkpoints, cancel=after)
    learned, report = learn(parts_of(name), checkpoints)
    assert learned == undisturbed(name)[0]
    assert 1 <= report.resumed <= 2
    assert report.curves == undisturbed(name)[1].curves != []


@pytest.mark.parametrize(("backbone", "kind"), [("mlp", "adam"), ("cnn", "sgd"), ("cnn", "adamw"), ("resnet18", "sgd")])
def test_every_step_can_be_resumed_from(backbone: str, kind: str) -> None:
    """Normalisation, momentum, and random shifts and mirror images."""
    options = LONGER.model_copy(update={"optimiser": kind, "augment": "shift+flip", "prune": False, "epochs": 2})
    made = dump(Memory.create(definition(backbone)))
    examples = bars(1, count=14)
    whole = again(made)
    whole.learn("task", examples, options)
    checkpoints, steps = InMemory(1), 0
    while True:
        memory = again(made)
        try:
            memory.learn("task", examples, options, checkpoints=checkpoints, progress=dying(3))
        except Killed:
            steps += 1
            assert steps < 40, "no progress is made"
            continue
        break
    assert steps > 3
    assert dump(memory) == dump(whole)


def test_whoever_resumes_tells_how_far_it_is_from_where_it_is() -> None:
    checkpoints = InMemory(1)
    reported: list[Progress] = []
    stop_after = LONGER.model_copy(update={"epochs": 6, "patience": 6})
    again(parts_of("eidetic")).learn("task 2", bars(2), stop_after, progress=reported.append)
    half = sum(progress.phase == "training" for progress in reported) // 2
    before: list[Progress] = []
    with pytest.raises(Killed):
        again(parts_of("eidetic")).learn(
            "task 2", bars(2), stop_after, progress=before.append, checkpoints=checkpoints, cancel=dying(half)
        )
    after: list[Progress] = []
    report = again(parts_of("eidetic")).learn(
        "task 2", bars(2), stop_after, progress=after.append, checkpoints=checkpoints
    )
    assert report.resumed == 1
    assert before[-1].epoch is not None
    assert before[-1].epoch > 1
    assert after[0].epoch == before[-1].epoch
    assert after[0].fraction >= before[-1].fraction
    assert len(before) + len(after) <= len(reported) + 3


def test_the_time_of_earlier_runs_counts() -> None:
    checkpoints = InMemory(1)
    with pytest.raises(Killed):
        again(parts_of("eidetic")).learn("task 2", bars(2), LONGER, checkpoints=checkpoints, cancel=dying(25))
    assert checkpoints.checkpoint is not None
    standing = pytree.load("checkpoint", checkpoints.checkpoint.pieces["standing"])
    assert standing["seconds"] > 0
    _, report = learn(parts_of("eidetic"), checkpoints)
    assert report.seconds["training"] >= round(standing["seconds"], 3)
    assert sum(report.phases.values()) == pytest.approx(sum(report.seconds.values()), abs=0.1)
    assert {"commons", "looking", "training", "head", "calibrating", "solving", "judging"} <= report.phases.keys()


class Watched(InMemory):
    """Checkpoints that note how many seconds of work were said to be at risk."""

    def __init__(self) -> None:
        super().__init__(1)
        self.risked: list[float] = []

    def due(self, seconds: float) -> bool:
        self.risked.append(seconds)
        return super().due(seconds)


class Clock:
    """A clock that moves only by `sleep`."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def test_what_was_taken_over_is_not_at_risk_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, clock = Watched(), Clock()
    monkeypatch.setattr("engram.checkpointing.journal.time", clock)
    Journal(checkpoints).once("slow", partial(clock.sleep, 0.5))
    assert checkpoints.risked.pop() == 0.5
    journal = Journal(checkpoints)
    journal.once("slow", partial(clock.sleep, 0.5))
    journal.once("quick", dict)
    assert checkpoints.risked.pop() == 0


OTHERS: dict[str, tuple[Examples, LearnOptions]] = {
    "other images": (bars(3), LONGER),
    "other options": (bars(2), LONGER.model_copy(update={"seed": 1})),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_anything_else_is_ignored(other: str, caplog: pytest.LogCaptureFixture) -> None:
    examples, options = OTHERS[other]
    checkpoints = InMemory(1)
    with pytest.raises(Killed):
        again(parts_of("eidetic")).learn("task 2", bars(2), LONGER, checkpoints=checkpoints, cancel=dying(25))
    resumed, whole = again(parts_of("eidetic")), again(parts_of("eidetic"))
    with caplog.at_level(logging.WARNING):
        report = resumed.learn("task 2", examples, options, checkpoints=checkpoints)
    assert report.resumed == 0
    assert "a checkpoint is ignored" in caplog.text
    whole.learn("task 2", examples, options)
    assert dump(resumed) == dump(whole)


def test_a_damaged_checkpoint_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = InMemory(1)
    with pytest.raises(Killed):
        again(parts_of("eidetic")).learn("task 2", bars(2), LONGER, checkpoints=checkpoints, cancel=dying(25))
    assert checkpoints.checkpoint is not None
    pieces = {**checkpoints.checkpoint.pieces, "standing": b"nonsense"}
    checkpoints.checkpoint = Checkpoint(checkpoints.checkpoint.about, pieces)
    with caplog.at_level(logging.WARNING):
        learned, report = learn(parts_of("eidetic"), checkpoints)
    assert "a checkpoint is ignored" in caplog.text
    assert report.resumed == 0
    assert learned == undisturbed("eidetic")[0]


def test_trees_come_back_as_they_were() -> None:
    shared = torch.arange(6).view(2, 3)
    tree = {
        "numbers": [1, 2.5, True, None, "text", float("inf")],
        "pair": (shared, shared.T),
        3: {"nothing": [], "bytes": b"\0\xff", "empty": torch.zeros(0, 2), "bits": torch.tensor([True, False])},
    }
    found = pytree.load("kind", pytree.dump("kind", tree))
    assert found["numbers"] == tree["numbers"]
    assert found[3]["bytes"] == b"\0\xff"
    assert isinstance(found["pair"], tuple)
    assert torch.equal(found["pair"][1], shared.T)
    assert found["pair"][1].is_contiguous()
    assert found[3]["empty"].shape == (0, 2)
    assert pytree.dump("kind", found) == pytree.dump("kind", tree)
    with pytest.raises(DamagedSnapshot):
        pytree.load("another kind", pytree.dump("kind", tree))
    with pytest.raises(TypeError, match="object"):
        pytree.dump("kind", [object()])
