"""Time and quality of answers: stages, contenders, accuracy and calibration of one version of a model."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness.metrics import calibration_error
from engram import Examples, Memory
from engram.recognition.predictions import Prediction

BATCH = 32
"""Images of a batch."""
SINGLE = 4
"""Images that are asked about one by one."""
LEAST_REPEATS = 3
IMAGES_PER_CALL = 256

Contenders = int | str | None
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
    takes = "contenders" in inspect.signature(memory.predict).parameters
    definition = memory.definition
    by_method = definition.method == "eidetic" and definition.settings.get("reads", "all") != "all"
    return takes and definition.recipe >= 3 and by_method


def ask(memory: Memory, images: Tensor, contenders: Contenders = None, task: str | None = None) -> list[Prediction]:
    """The predictions for (B, C, H, W) uint8 images; only a staged model is told of contenders."""
    # mypy reads the signature of today: the argument exists where a model is staged.
    options: dict[str, Any] = {} if contenders is None or not staged(memory) else {"contenders": contenders}
    return memory.predict(images, task, **options)


def ran(prediction: Prediction) -> tuple[str, ...] | None:
    """The tasks whose engrams ran for an answer; None where that is not told."""
    found: tuple[str, ...] | None = getattr(prediction, "ran", None)
    return found


def stage_one(memory: Memory) -> Callable[[Tensor], object] | None:
    """The first stage alone, as a function of images; None where the method has none."""
    found: Callable[[Tensor], object] | None = getattr(memory.method.current(), "stage_one", None)
    return found


def fastest(calls: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Milliseconds of the fastest run of each call, all of them in turn for about so many seconds."""
    found = [float("inf")] * len(calls)
    until, repeats = time.perf_counter() + seconds * len(calls), 0
    while repeats <= LEAST_REPEATS or time.perf_counter() < until:
        for number, call in enumerate(calls):
            began = time.perf_counter()
            call()
            passed = 1000 * (time.perf_counter() - began)
            # The first run of a shape sets things up.
            found[number] = min(found[number], passed) if repeats else found[number]
        repeats += 1
    return [round(value, 3) for value in found]


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
    hook = stage_one(memory)
    first_stage = (
        fastest([partial(hook, batches.mixed), *(partial(hook, one[None]) for one in batches.single)], seconds)
        if hook
        else None
    )
    found: dict[str, Any] = {}
    for number in contenders:
        worst, hit = worst_batch(memory, batches.mixed, images, number)
        mixed, newest, hardest, alone = fastest(
            [
                partial(ask, memory, batches.mixed, number),
                partial(ask, memory, batches.newest, number),
                partial(ask, memory, worst, number),
                partial(ask, first, batches.mixed, number),
            ],
            seconds,
        )
        single = fastest([partial(ask, memory, one[None], number) for one in batches.single], seconds / SINGLE)
        found[_key(number)] = {
            "mixed": mixed,
            "newest": newest,
            "worst": hardest,
            "worst_engrams": hit,
            "one_task": alone,
            "single": _mean(single),
            "stage_one": first_stage[0] if first_stage else None,
            "stage_two": round(mixed - first_stage[0], 3) if first_stage else None,
            "stage_one_single": _mean(first_stage[1:]) if first_stage else None,
            "stage_two_single": round(_mean(single) - _mean(first_stage[1:]), 3) if first_stage else None,
        }
    task = memory.tasks[-1].name
    given = fastest([partial(ask, memory, batches.newest, None, task)], seconds)
    return {"by_contenders": found, "newest_task_given": given[0]}


def worst_batch(memory: Memory, mixed: Tensor, images: Tensor, contenders: Contenders) -> tuple[Tensor, int | None]:
    """The 32 images that hit as many tasks as possible, and the number of (image, engram) pairs that run for them.

    Where it is not told which engrams ran, all of them did, and any batch is as bad: the mixed one is returned.
    """
    told = [ran(answer) for part in torch.split(images, IMAGES_PER_CALL) for answer in ask(memory, part, contenders)]
    sets = [set(one) for one in told if one is not None]
    if len(sets) < len(told):
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
    engrams = [len(told) for answer in answers if (told := ran(answer)) is not None]
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
