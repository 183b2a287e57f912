"""Tests of streams without announced task switches: detection and learning."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engram import Memory
from engram.certificate import certify, compare
from engram.drift.task_switches import TaskSwitchDetector, surprise
from engram.errors import Cancelled, ExamplesError, InvalidDefinition
from engram.streams import Batch, Stream, StreamOptions, learn_stream
from testing.data.patterns import QUICK, bars, definition

LEARNING = QUICK.model_copy(update={"epochs": 6, "patience": 6, "learning_rate": 1e-2})
WATCHING = StreamOptions(window=32, reference=2, margin=0.05)


def made(method: str = "rmn") -> Memory:
    return Memory.create(definition("mlp", budget=8.0, method=method))


def stream(tasks: int, count: int = 160, fade: float = 0.0, seed: int = 0) -> Iterator[Batch]:
    """Bars of one task after another, in batches of 16; `fade` of each task's length lies in the next one's time."""
    generator = torch.Generator().manual_seed(seed)
    times, images, labels = [], [], []
    for task in range(tasks):
        examples = bars(task, count)
        times.append(task + torch.rand(len(examples), generator=generator) * (1 + (fade if task < tasks - 1 else 0)))
        images.append(examples.images)
        labels += [examples.classes[label] for label in examples.labels.tolist()]
    whole = torch.cat(images)
    for rows in torch.split(torch.cat(times).argsort(), 16):
        yield whole[rows], [labels[row] for row in rows.tolist()]


def windows(level: float, count: int, seed: int) -> list[list[float]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(64, generator=generator) * 0.2 + level).tolist() for _ in range(count)]


def test_surprise_is_what_the_formula_says() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    powers = logits.double().exp()
    right = [1 - float(powers[0, 2] / powers[0].sum()), 1 - 1 / 3]
    assert surprise(logits, torch.tensor([2, 0])).tolist() == pytest.approx(right)
    silent = [1 / (1 + float(powers[0].sum())), 1 / 4]
    assert surprise(logits).tolist() == pytest.approx(silent)


def test_a_switch_takes_two_suspicious_windows_in_a_row() -> None:
    switches = TaskSwitchDetector(window=64, reference=3, margin=0.03)
    assert not any(switches.judge(window) for window in windows(0.0, 10, 1))
    high, low = windows(0.3, 3, 2), windows(0.0, 1, 3)
    assert not switches.judge(high[0])
    assert switches.suspicions == 1
    assert not switches.judge(low[0]), "one high window is an accident"
    assert switches.suspicions == 0
    assert not switches.judge(high[1])
    assert switches.judge(high[2])


def test_learning_and_small_rises_are_no_switches() -> None:
    switches = TaskSwitchDetector(window=64, reference=3, margin=0.1)
    falling = [window for step in range(8) for window in windows(0.8 - 0.1 * step, 1, step)]
    assert not any(switches.judge(window) for window in falling)
    assert not any(switches.judge(window) for window in windows(0.15, 6, 20)), "0.05 is under the margin"


def test_nothing_is_judged_before_there_is_a_reference() -> None:
    switches = TaskSwitchDetector(window=64, reference=3)
    assert not any(switches.judge(window) for level in (0.0, 0.4, 0.8) for window in windows(level, 1, 4))
    switches.reset()
    assert not any(switches.judge(window) for window in windows(0.8, 3, 5))


@pytest.mark.parametrize("fade", [pytest.param(0.0, marks=pytest.mark.slow), 0.4])
def test_tasks_are_found_in_a_stream(fade: float) -> None:
    memory = made()
    watched = Stream(memory, LEARNING, WATCHING)
    certificates, total = [], 0
    for images, labels in stream(3, 320 if fade else 160, fade):
        total += len(labels)
        if watched.see(images, labels):
            certificates.append(certify(memory))
    watched.finish()
    assert [set(info.classes) for info in memory.tasks] == [set(bars(task).classes) for task in range(3)]
    assert all(compare(then, certify(memory)) == [] for then in certificates), "what is closed is fixed"
    assert len(certificates) == 2
    for task in range(3):
        examples = bars(task)
        found = [answer.label for answer in memory.predict(examples.images)]
        right = [examples.classes[label] for label in examples.labels.tolist()]
        assert sum(a == b for a, b in zip(found, right, strict=True)) > 0.85 * len(right)
    if fade:
        assert watched.passed > 0.1 * fade * total, "late images of a closed task are recognised, and left out"


def test_a_stream_of_one_task_is_one_task_however_it_is_cut() -> None:
    memory = made()
    reports = learn_stream(memory, stream(1, 400), LEARNING, WATCHING)
    assert [info.name for info in memory.tasks] == [report.task for report in reports] == ["task 1"]
    assert learn_stream(memory, stream(1, 100, seed=1), LEARNING, WATCHING) == [], "all of it is known already"


def test_a_task_needs_two_classes() -> None:
    memory = made()
    only = ((images, ["alone"] * len(labels)) for images, labels in stream(2))
    assert learn_stream(memory, only, LEARNING, WATCHING) == []
    assert not memory.tasks


def test_too_many_labels_are_refused() -> None:
    watched = Stream(made(), LEARNING, WATCHING.model_copy(update={"max_labels": 2}))
    (images, labels), *_ = stream(1)
    watched.see(images, labels)
    assert watched.see(images[:8], ["third"] * 8) == []
    with pytest.raises(ExamplesError, match="more than 2 labels"):
        watched.finish()


def test_what_is_held_is_bounded() -> None:
    watched = Stream(made(), LEARNING, WATCHING.model_copy(update={"hold": 64}))
    for images, labels in stream(1):
        watched.see(images, labels)
    (report,) = watched.finish()
    assert sum(report.classes.values()) + report.held_out == 64


def test_closed_tasks_stay_when_a_stream_is_cancelled() -> None:
    memory = made()
    asked = iter(range(10**9))
    limit: list[int] = []

    def cancel() -> bool:
        number = next(asked)
        return bool(limit) and number > limit[0]

    watched = Stream(memory, LEARNING, WATCHING, cancel=cancel)

    def go_on() -> None:
        for images, labels in stream(3):
            if watched.see(images, labels):
                limit.append(next(asked) + 20)

    with pytest.raises(Cancelled):
        go_on()
    assert [info.name for info in memory.tasks] == ["task 1"]


def test_other_methods_are_refused_by_name() -> None:
    with pytest.raises(InvalidDefinition, match="eidetic"):
        Stream(made("eidetic"))
