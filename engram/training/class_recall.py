"""Recall of each class on held-out images, with Wilson's interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engram.config.options import LearnOptions
from engram.data.examples import Examples, held_out_counts
from engram.errors import RecallUnmeasurable

NORMAL_QUANTILE = 1.959963984540054
"""Of a standard normal variable at 0.975, for intervals of 95 %."""

MEASURABLE = 20
"""Held-out images of a class from which on its recall says enough to be asked for."""


NAMED = 5
"""Classes that an error, or warnings, name at most."""


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, `right` of `count` having been counted (Wilson 1927); (0, 1) of none.

    >>> [round(limit, 4) for limit in wilson_interval(1, 1)]
    [0.2065, 1.0]
    """
    if not count:
        return 0.0, 1.0
    share, square = right / count, NORMAL_QUANTILE**2
    centre = (share + square / (2 * count)) / (1 + square / count)
    half = NORMAL_QUANTILE / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    # Of none or all the limit is 0 or 1 itself, which rounding may miss.
    return (0.0 if right == 0 else max(0.0, centre - half)), (1.0 if right == count else min(1.0, centre + half))


@dataclass(frozen=True)
class ClassRecall:
    """The recall of one class: which share of its held-out images is answered right, the task given."""

    held_out: int
    right: int

    @classmethod
    def of(cls, hits: Tensor, held_out: Examples) -> dict[str, Self]:
        """Of every class, from which held-out images were answered right, (M,) bool."""
        size = len(held_out.classes)
        counts = torch.bincount(held_out.labels, minlength=size).tolist()
        right = torch.bincount(held_out.labels[hits.cpu()], minlength=size).tolist()
        return {name: cls(*each) for name, *each in zip(held_out.classes, counts, right, strict=True)}

    @property
    def recall(self) -> float:
        return self.right / max(1, self.held_out)

    def to_dict(self) -> dict[str, object]:
        """As JSON, with the limits of the 95 % interval."""
        interval = list(wilson_interval(self.right, self.held_out))
        return {"held_out": self.held_out, "recall": self.recall, "interval": interval}


def balanced_accuracy(recalls: Mapping[str, ClassRecall]) -> float:
    """The mean of the classes' recalls."""
    return sum(each.recall for each in recalls.values()) / max(1, len(recalls))


def recall_warnings(recalls: Mapping[str, ClassRecall]) -> list[str]:
    """Which recalls rest on too few held-out images to say much.

    A sentence for each class; one for all where every class has few, or more than `NAMED` do.
    """
    few = {name: each.held_out for name, each in recalls.items() if each.held_out < MEASURABLE}
    if len(few) > NAMED or len(few) == len(recalls) > 1:
        least = min(few, key=lambda name: few[name])
        return [
            f"the recall of {len(few)} classes rests on fewer than {MEASURABLE} held-out images each, of {least!r} on "
            f"{few[least]}"
        ]
    counts = {name: f"{count} held-out image{'' if count == 1 else 's'}" for name, count in few.items()}
    return [
        f"the recall of {name!r} rests on {images}; more would tell how it fares" for name, images in counts.items()
    ]


def expect_measurable(examples: Examples, options: LearnOptions, recipe: int) -> None:
    """Refuse a `min_recall` that could not be judged.

    Raises
    ------
    RecallUnmeasurable
        naming the classes of which too few images would be held out.
    """
    if not options.min_recall:
        return
    counts = zip(examples.classes, held_out_counts(examples, options.held_out, recipe), strict=True)
    few = [f"{name!r} has {count}" for name, count in counts if count < MEASURABLE]
    if few:
        raise RecallUnmeasurable(
            f"min_recall needs {MEASURABLE} held-out images of every class; {', '.join(few[:NAMED])}"
            f"{' and others have fewer too' if len(few) > NAMED else ''}; send more, or hold out a larger share"
        )
