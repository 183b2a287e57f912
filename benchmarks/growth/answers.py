"""Time and quality of answers: stages, contenders, accuracy and calibration of one version of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from engram import Examples, Memory
from engram.recognition.predictions import Prediction
from engram.training.evaluation.calibration_error import calibration_error

BATCH = 32
"""Images of a batch."""
SINGLE = 4
"""Images that are asked about one by one."""
LEAST_REPEATS = 3
IMAGES_PER_CALL = 256

Contenders = int | Literal["all"] | None
"""A number, "all", or None for the model's own setting."""


@dataclass(frozen=True)
class Batches:
    """What is timed, as (B, C, H, W) uint8."""

    mixed: Tensor
    """32 images of all tasks in turn."""
    newest: Tensor
    """32 images of the newest task."""
    single: Tensor
    """Single images of several tasks, which are asked about one by one."""

    @classmethod
    def of(cls, tests: Sequence[Examples]) -> Batches:
        """The batches from the test images of the tasks so far."""
        rounds = range(-(-BATCH // len(tests)))
        # One class comes after the other in a task's images, so they are taken alternately from both ends.
        ends = [number // 2 if number % 2 == 0 else -1 - number // 2 for number in rounds]
        mixed = torch.stack([part.images[end] for end in ends for part in tests][:BATCH])
        newest = tests[-1].images[torch.linspace(0, len(tests[-1]) - 1, BATCH).long()]
        return cls(mixed, newest, mixed[:: BATCH // SINGLE])


def staged(memory: Memory) -> bool:
    """Whether a version answers in two stages, so that contenders can be chosen."""
    definition = memory.definition
    return definition.recipe >= 3 and definition.settings.get("reads", "all") != "all"


def ask(memory: Memory, images: Tensor, contenders: Contenders = None, task: str | None = None) -> list[Prediction]:
    """The predictions for (B, C, H, W) uint8 images; only a staged model is told of contenders."""
    return memory.predict(images, task, contenders=contenders if staged(memory) else None)


def stage_one(memory: Memory) -> Callable[[Tensor], object] | None:
    """The first stage alone, as a function of images; None where the method has none."""
    # Only the staged method has it, and `Memory` knows methods by their base.
    serving: Callable[[], Any] | None = getattr(memory.method, "serving", None)
    if serving is None or not staged(memory):
        return None
    served = serving()
    return lambda images: served.stage_one(served.look(images).features)


@dataclass(frozen=True)
class Fastest:
    """Milliseconds of the fastest run of each of some calls, by the clock and by the processor."""

    wall: list[float]
    processor: list[float]
    """Of all threads together: where there is one, this is what the clock of a quiet machine would show."""


def fastest(calls: Sequence[Callable[[], object]], seconds: float) -> Fastest:
    """Run each call at least four times, all of them in turn, for about so many seconds each."""
    wall, processor = [float("inf")] * len(calls), [float("inf")] * len(calls)
    until, repeats = time.perf_counter() + seconds * len(calls), 0
    while repeats <= LEAST_REPEATS or time.perf_counter() < until:
        for number, call in enumerate(calls):
            began, worked = time.perf_counter(), time.process_time()
            call()
            passed, worked = time.perf_counter() - began, time.process_time() - worked
            if repeats:  # the first run of a shape sets things up
                wall[number] = min(wall[number], 1000 * passed)
                processor[number] = min(processor[number], 1000 * worked)
        repeats += 1
    return Fastest([round(value, 3) for value in wall], [round(value, 3) for value in processor])


@torch.no_grad()
def timings(
    memory: Memory, first: Memory, batches: Batches, images: Tensor, contenders: Sequence[Contenders], seconds: float
) -> dict[str, Any]:
    """Milliseconds a batch, by contenders.

    Parameters
    ----------
    first
        The version with one task, which is timed in turn with this one, since machines are not alike at all times.
    images
        (N, C, H, W) uint8: where the worst batch is looked for.
    """
    alone = torch.get_num_threads() == 1
    hook, singles = stage_one(memory), torch.split(batches.single, 1)
    stages: Fastest | None = None
    if hook is not None:
        stages = fastest([partial(hook, part) for part in (batches.mixed, *singles)], seconds)
    found: dict[str, Any] = {}
    for number in contenders:
        worst, hit = worst_batch(memory, batches.mixed, images, number)
        times = fastest(
            [
                partial(ask, memory, batches.mixed, number),
                partial(ask, memory, batches.newest, number),
                partial(ask, memory, worst, number),
                partial(ask, first, batches.mixed, number),
            ],
            seconds,
        )
        single = fastest([partial(ask, memory, one, number) for one in singles], seconds / SINGLE)
        found[_key(number)] = {
            **_figures(times.wall, single.wall, stages.wall if stages else None),
            "processor": _figures(times.processor, single.processor, stages.processor if stages else None)
            if alone
            else None,
            "worst_engrams": hit,
        }
    given = fastest([partial(ask, memory, batches.newest, None, memory.tasks[-1].name)], seconds)
    return {"by_contenders": found, "newest_task_given": given.wall[0]}


def _figures(times: Sequence[float], single: Sequence[float], stages: Sequence[float] | None) -> dict[str, Any]:
    """Milliseconds by what was asked; the second stage is what the whole takes beyond the first."""
    mixed, newest, worst, one_task = times
    alone, first = _mean(single), None if stages is None else _mean(stages[1:])
    return {
        "mixed": mixed,
        "newest": newest,
        "worst": worst,
        "one_task": one_task,
        "single": alone,
        "stage_one": None if stages is None else stages[0],
        "stage_two": None if stages is None else round(mixed - stages[0], 3),
        "stage_one_single": first,
        "stage_two_single": None if first is None else round(alone - first, 3),
    }


def worst_batch(memory: Memory, mixed: Tensor, images: Tensor, contenders: Contenders) -> tuple[Tensor, int | None]:
    """The 32 images that hit as many tasks as possible, and the number of (image, engram) pairs that run for them.

    Where it is not told which engrams ran, all of them did, and any batch is as bad: the mixed one is returned.
    """
    parts = torch.split(images, IMAGES_PER_CALL)
    sets = [set(answer.ran) for part in parts for answer in ask(memory, part, contenders)]
    if not all(sets):
        return mixed, None
    chosen = covering(sets, BATCH)
    return images[chosen], sum(len(sets[row]) for row in chosen)


def covering(sets: Sequence[set[str]], count: int) -> list[int]:
    """The numbers of `count` sets that cover as much as possible, greedily; among equals the largest sets."""
    covered: set[str] = set()
    left = list(range(len(sets)))
    chosen: list[int] = []
    while left and len(chosen) < count:
        best = max(left, key=lambda row: (len(sets[row] - covered), len(sets[row]), -row))
        chosen.append(best)
        left.remove(best)
        covered |= sets[best]
    return chosen


def quality(
    memory: Memory, names: Sequence[str], tests: Sequence[Examples], contenders: Sequence[Contenders]
) -> dict[str, Any]:
    """Accuracy in per cent, calibration error of the label's probability, and engrams run, by contenders."""
    with_id = [
        answer.label == test.classes[label]
        for name, test in zip(names, tests, strict=True)
        for answer, label in zip(_all(memory, test, None, name), test.labels.tolist(), strict=True)
    ]
    return {
        "with_id": _percent(with_id),
        "images": len(with_id),
        "by_contenders": {_key(number): _without_id(memory, names, tests, number) for number in contenders},
    }


def _without_id(
    memory: Memory, names: Sequence[str], tests: Sequence[Examples], contenders: Contenders
) -> dict[str, Any]:
    right: list[bool] = []
    recognised: list[bool] = []
    answers: list[Prediction] = []
    for name, test in zip(names, tests, strict=True):
        given = _all(memory, test, contenders)
        right += [a.label == test.classes[label] for a, label in zip(given, test.labels.tolist(), strict=True)]
        recognised += [answer.task == name for answer in given]
        answers += given
    engrams = [len(answer.ran) for answer in answers if answer.ran]
    probabilities = torch.tensor([answer.probability for answer in answers])
    return {
        "without_id": _percent(right),
        "recognised": _percent(recognised),
        "calibration_error": round(calibration_error(probabilities, torch.tensor(right)), 4),
        "one_contender": _percent([count == 1 for count in engrams]) if engrams else None,
        "engrams_run": _mean(engrams) if engrams else None,
    }


def _all(memory: Memory, test: Examples, contenders: Contenders, task: str | None = None) -> list[Prediction]:
    return [
        answer for part in torch.split(test.images, IMAGES_PER_CALL) for answer in ask(memory, part, contenders, task)
    ]


def _key(contenders: Contenders) -> str:
    return "default" if contenders is None else str(contenders)


def _percent(values: Sequence[bool]) -> float:
    return round(100 * sum(values) / len(values), 2)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 3)
