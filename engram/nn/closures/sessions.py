"""Sessions: what a runtime beside PyTorch computes of a task's maps."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.config.engines import Precision
from engram.errors import EngineMissing
from engram.nn.closures.closure import BlockOwner
from engram.nn.closures.half_steps import Sizes
from engram.nn.closures.operations import (
    Convolution,
    Flattening,
    Gathering,
    GlobalAverage,
    MaxPool,
    Operation,
    RectifiedSum,
)
from engram.nn.closures.plan import ClosurePlan, Engine, Run
from engram.nn.runtimes import InferenceRuntime
from engram.nn.shapes import SHAPES, Rows

SIZES: Sizes = tuple(range(1, SHAPES[-1] + 1))

OF_MAPS = (Convolution, MaxPool, GlobalAverage, Flattening, RectifiedSum, Gathering)
"""Operations that a runtime has an image's bytes of, however many there are; others are products of matrices."""

Step = tuple[Operation, tuple[int, ...], int]
"""An operation, the places that it reads, and the one that it writes; images are at place 0."""

Values = NDArray[numpy.float32]

Compiled = Callable[[Values, Sequence[int] | None], Sequence[Values]]
"""From images (B, C, H, W) and which of them, all or up to `SIZES[-1]`, to what is asked of those, (B, ...) each."""


class Session(NamedTuple):
    """What a runtime computes of a plan, and where its results belong."""

    run: Compiled
    places: tuple[int, ...]
    weights: bytes
    """SHA-256 of what it was made of."""


class Kept:
    """The session of an engram, made by one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.session: Session | None = None


class SessionRun:
    """What runs a plan: a session, and then the steps that are PyTorch's."""

    def __init__(self, session: Session, rest: Sequence[Step], results: Sequence[int]) -> None:
        self._session = session
        self._rest = rest
        self._results = results

    def __call__(self, images: Tensor, rows: Rows | None = None) -> tuple[Tensor, ...]:
        """The results for images (B, C, H, W) float32 in [0, 1], up to `SIZES[-1]` of them, or for some rows."""
        seen = self._session.run(images.contiguous().numpy(), None if rows is None else rows.tolist())
        values = dict(zip(self._session.places, map(torch.from_numpy, seen), strict=True))
        for operation, given, found in self._rest:
            values[found] = operation(*[values[place] for place in given])
        return tuple(values[place] for place in self._results)


class SessionEngine(ABC):
    """Runtime for all that is computed of maps, by one thread; dense layers and heads are PyTorch's, row by row.

    Nothing has to be padded: it has an image's bytes whatever is beside it. On a GPU all is PyTorch's.

    Parameters
    ----------
    of_candidates
        As of `Engine`, of the same precision.
    """

    runtime: ClassVar[InferenceRuntime]
    eager = False
    sizes = SIZES

    def __init__(self, of_candidates: Engine) -> None:
        self.precision: Precision = of_candidates.precision
        self._of_candidates = of_candidates
        self._kept: WeakKeyDictionary[BlockOwner, Kept] = WeakKeyDictionary()
        self._lock = threading.Lock()

    @property
    def of_candidates(self) -> Engine:
        return self._of_candidates

    def prepare(self, plan: ClosurePlan, owner: BlockOwner) -> Run:
        """What runs a plan; raises EngineMissing.

        A session is kept for as long as any version has the engram, and made anew if it has other weights.
        """
        mapped = _of_maps(plan.operations)
        if not mapped or owner.head.weight.device.type != "cpu":
            return plan.run
        with self._lock:
            kept = self._kept.setdefault(owner, Kept())
        weights = _digest(mapped)
        with kept.lock:
            if kept.session is None or kept.session.weights != weights:
                kept.session = self._session(plan, mapped, owner, weights)
            session = kept.session
        there = {found for _, _, found in mapped}
        rest = tuple(step for step in plan.operations if step[2] not in there)
        assert all(place for _, given, _ in rest for place in given), "what reads images is of maps"
        return SessionRun(session, rest, plan.results)

    def _session(self, plan: ClosurePlan, mapped: Sequence[Step], owner: BlockOwner, weights: bytes) -> Session:
        there = {found for _, _, found in mapped}
        reading = [place for step in plan.operations if step[2] not in there for place in step[1]]
        places = tuple(sorted(there.intersection([*reading, *plan.results])))
        image = (owner.layout.channels, *owner.layout.image_size)
        self.runtime.require()
        try:
            run = self.compiled(mapped, places, image)
        except (MemoryError, EngineMissing):
            raise
        except Exception as error:  # the runtime's own, of many kinds
            raise self.runtime.refusal(repr(owner.task), error) from error
        if run is None:
            raise EngineMissing(
                f"{self.runtime.name} gives an image of {owner.task!r} other bytes beside others, on this processor"
            )
        return Session(run, places, weights)

    @abstractmethod
    def compiled(self, steps: Sequence[Step], places: Sequence[int], image: tuple[int, int, int]) -> Compiled | None:
        """What computes the values of some places; None if an image had other bytes beside others.

        Parameters
        ----------
        steps
            Those of `OF_MAPS`, in order.
        image
            Channels, height and width of an image.
        """


def _of_maps(steps: Sequence[Step]) -> list[Step]:
    """The steps that depend on the image by operations on maps alone."""
    found, there = list[Step](), {0}
    for step in steps:
        if isinstance(step[0], OF_MAPS) and there.issuperset(step[1]):
            found.append(step)
            there.add(step[2])
    return found


def _digest(steps: Sequence[Step]) -> bytes:
    """SHA-256 of the steps' weights, and of which channels they read."""
    found = hashlib.sha256()
    for operation, given, place in steps:
        found.update(repr((type(operation).__name__, given, place)).encode())
        parts: list[Tensor] = []
        if isinstance(operation, Convolution):
            parts = [operation.weight.permute(0, 2, 3, 1).float(), operation.bias.float()]
        elif isinstance(operation, Gathering):
            parts = [some for some in operation.chosen if some is not None]
        for part in parts:
            found.update(repr(part.shape).encode())
            found.update(part.contiguous().numpy().data)
    return found.digest()
