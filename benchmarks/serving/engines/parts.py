"""Parts of an answer: each as it is computed today, and in plain operations that others can compile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engram import Memory
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.methods.eidetic.staged.plain.looks import GridFeatures
from engram.nn.commons import Commons
from engram.nn.commons.grid_commons import GridCommons
from engram.nn.commons.pretrained_commons import PretrainedCommons

Run = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Part:
    """One part of an answer."""

    name: str
    given: Tensor
    """(N, ...): what it reads of images."""
    today: Run
    plain: Run | None = None
    """The same in operations that can be followed; None for a part that only today's code computes."""
    after: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] | None = None
    """What becomes of that by today's code."""
    largest: int = 32
    """Images that are computed together at most."""


def parts(memory: Memory, images: Tensor) -> list[Part]:
    """The parts of an answer to images (N, C, H, W) uint8: commons, ridge of all classes, the newest task's network."""
    method = memory.method
    assert isinstance(method, StagedEidetic), "only answers of staged models have parts"
    serving = method.serving()
    look, newest = serving.look(images), serving.served[-1].info.name
    network, stage_one = serving.network, serving.stage_one

    def first(some: Tensor) -> tuple[Tensor, ...]:
        return (stage_one(some).unusual,)

    def second(some: Tensor) -> tuple[Tensor, ...]:
        return network.answer(newest, some)

    return [
        _commons(serving.commons, images),
        Part("stage one", look.features, first),
        Part("stage two", look.given, second, second, largest=max(method.shapes)),
    ]


def _commons(commons: Commons, images: Tensor) -> Part:
    """Of filters the features; of a network that was brought its levels, which are read as today."""
    if not isinstance(commons, PretrainedCommons):
        assert isinstance(commons, GridCommons), "served networks have commons of one kind"
        plain = GridFeatures(commons)
        return Part("commons", images, lambda some: (commons.of_bytes(some),), lambda some: (plain(some)[1],))
    network = commons.network

    def read(found: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        *levels, features = found
        return commons.readings.read(levels, features), commons.readings.maps(levels)

    def seen(some: Tensor) -> tuple[Tensor, ...]:
        found = network.look_together(some)
        return *found.levels, found.features

    def today(some: Tensor) -> tuple[Tensor, ...]:
        found = network.look(some)
        return read((*found.levels, found.features))

    return Part("commons", images, today, seen, read)


def rows_alike(run: Run, given: Tensor) -> bool:
    """Whether each row of what is computed has the same bytes in another place, and beside other rows."""
    found, turned = run(given), run(given.flip(0).contiguous())
    blank = given.clone()
    blank[1:] = 0
    alone = run(blank)
    same = all(torch.equal(one, other.flip(0)) for one, other in zip(found, turned, strict=True))
    return same and all(torch.equal(one[0], other[0]) for one, other in zip(found, alone, strict=True))


def apart(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """How far values lie from today's, in multiples of the largest of these, or of 1."""
    most = 0.0
    for one, other in zip(found, wanted, strict=False):
        most = max(most, float((one - other).abs().max()) / max(1.0, float(other.abs().max())))
    return most
