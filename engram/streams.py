"""Learning from a stream of labelled images whose task switches are not announced.

With relevance mapping networks, after Kaushik et al. 2021, algorithm 2: images that finished maps recognise are left
out, an open map learns from the rest as they come, and a Welch test on its surprise (`engram.drift.task_switches`)
detects when the task has changed. Images are held while their task is open, as they are when a task is learned from an
upload, and none is held afterwards: at a switch the task is learned from them as any other is, and the open map, which
only served to detect the switch, is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import AliasChoices, Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from engram.checkpointing.progress import Progress, Reporter
from engram.config.base import Frozen
from engram.config.options import LearnOptions
from engram.context import LearnContext
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.data.images import check_images
from engram.drift.task_switches import TaskSwitchDetector, surprise
from engram.errors import ExamplesError, InvalidDefinition, InvalidOptions, require_type
from engram.memory import Memory
from engram.methods.rmn.map_learning import MapCandidate, MapRegulariser
from engram.methods.rmn.method import Rmn
from engram.nn.network import pixels
from engram.recognition.conformal import ALPHA
from engram.training.mixed_precision import expect_mixable
from engram.training.report import LearningReport

Batch = tuple[Tensor, Sequence[str]]
"""(B, C, H, W) uint8 images, and the label of each."""


class StreamOptions(Frozen):
    """Options of a stream: how task switches are detected, and how many images are held."""

    deprecated_names: ClassVar[Mapping[str, str]] = {"least_share": "min_share", "most_labels": "max_labels"}

    window: int = Field(default=256, ge=16, le=65536)
    """Unfamiliar images that are judged together; half of two windows pass before a switch can be noticed."""
    reference: int = Field(default=4, ge=1, le=1024)
    """Windows that the newest is compared with."""
    alpha: float = Field(default=1e-3, gt=0, lt=1)
    """The p-value under which a window is suspicious; two in a row are a switch."""
    margin: float = Field(default=0.03, ge=0, lt=1)
    """Rise of the mean surprise (0 to 1) that is no sign of another task yet."""
    hold: int = Field(default=20000, ge=64)
    """Images of the open task that are held at most; beyond that, some are dropped at random."""
    min_share: float = Field(default=0.1, ge=0, lt=1, validation_alias=AliasChoices("min_share", "least_share"))
    """A class with less than this share of the most frequent one's images is no part of the task that is closed."""
    max_labels: int = Field(default=64, ge=2, le=4096, validation_alias=AliasChoices("max_labels", "most_labels"))
    """Distinct labels that one task may have."""


@dataclass(frozen=True)
class HeldImages:
    """Images of the open task (N, C, H, W) uint8, with their labels."""

    images: Tensor
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def plus(self, other: HeldImages) -> HeldImages:
        return HeldImages(torch.cat([self.images, other.images]), self.labels + other.labels)

    def some(self, rows: Tensor) -> HeldImages:
        """Those at some indices."""
        return HeldImages(self.images[rows], tuple(self.labels[row] for row in rows.tolist()))

    def where(self, chosen: Sequence[bool]) -> HeldImages:
        return self.some(torch.tensor(chosen, dtype=torch.bool).nonzero().flatten())


class Stream:
    """A learner of a stream of labelled batches, which opens and closes tasks by itself.

    Every task that is closed is in the memory, for good; on any error, those closed before are. A task needs two
    classes: where a switch comes before there are two, the task stays open.

    Parameters
    ----------
    memory
        Of the method `rmn`; it is changed.
    options
        How a task is learned once it is closed; the open map takes its learning rate and batch size.
    progress, cancel
        As for `Memory.learn`.

    Raises
    ------
    InvalidDefinition
        for a memory of another method.
    InvalidOptions
        for options of another type, and those that the method cannot learn by.
    """

    def __init__(
        self,
        memory: Memory,
        options: LearnOptions | None = None,
        stream: StreamOptions | None = None,
        *,
        progress: Callable[[Progress], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> None:
        if not isinstance(memory.method, Rmn):
            raise InvalidDefinition(f"streams are learned by the method rmn, not by {memory.definition.method}")
        self.memory = memory
        self.method: Rmn = memory.method
        self.options = options or LearnOptions()
        self.stream = stream or StreamOptions()
        require_type("options", self.options, LearnOptions, InvalidOptions)
        require_type("options of the stream", self.stream, StreamOptions, InvalidOptions)
        expect_mixable(memory.definition, self.options)
        self._progress, self._cancel = progress, cancel
        self._switches = TaskSwitchDetector(
            self.stream.window, self.stream.reference, self.stream.alpha, self.stream.margin
        )
        self._generator = torch.Generator().manual_seed(memory.definition.seed)
        self.passed = 0
        """Images that finished maps recognised."""
        self.left_out = 0
        """Images of classes that were no part of a task when it was closed, nor can be of the next."""
        self._open(_empty(memory))

    def _open(self, held: HeldImages) -> None:
        self._held = held
        self._pending = _empty(self.memory)
        self._switches.reset()
        self._watcher = _OpenMap(self.method, self.options, self.stream, self._generator)
        if len(held):
            self._watcher.learn(held)

    def see(self, images: Tensor, labels: Sequence[str]) -> list[LearningReport]:
        """Take in a batch; the reports of the tasks that it closed.

        Raises
        ------
        ImageError
            for images of another size or dtype than the model takes.
        ExamplesError
            for labels that are no strings or not one for each image, and for too many of them.
        Cancelled, LearningFailed
        """
        check_images(images, self.memory.definition.input)
        if isinstance(labels, str) or len(labels) != len(images) or not all(isinstance(one, str) for one in labels):
            raise ExamplesError(f"a batch of {len(images)} images has as many labels, each a string")
        unfamiliar = self._unfamiliar(HeldImages(images, tuple(labels)))
        self._pending = self._pending.plus(unfamiliar)
        reports = []
        while len(self._pending) >= self.stream.window * (self._switches.suspicions + 1):
            start = self.stream.window * self._switches.suspicions
            window = self._pending.some(torch.arange(start, start + self.stream.window))
            if self._switches.judge(self._watcher.surprises(window)):
                reports.extend(self._switch())
            elif not self._switches.suspicions:
                self._accept(start + self.stream.window)
        return reports

    def finish(self) -> list[LearningReport]:
        """Close the open task, if it is one; the stream may go on."""
        self._accept(len(self._pending))
        return self._close()

    def _accept(self, count: int) -> None:
        """Learn and hold the first of the pending images: they belong to the open task."""
        rows = torch.arange(len(self._pending))
        accepted, self._pending = self._pending.some(rows[:count]), self._pending.some(rows[count:])
        if not len(accepted):
            return
        self._watcher.learn(accepted)
        self._held = self._held.plus(accepted)
        if len(self._held) > self.stream.hold:
            kept = torch.randperm(len(self._held), generator=self._generator)[: self.stream.hold]
            self._held = self._held.some(kept.sort().values)

    def _switch(self) -> list[LearningReport]:
        pending = self._pending
        reports = self._close()
        if not reports:  # too little to be a task: what follows is of one with it
            self._switches.reset()
            self._accept(len(pending))
            return []
        self._pending = self._unfamiliar(pending)
        return reports

    def _close(self) -> list[LearningReport]:
        counts = {label: self._held.labels.count(label) for label in dict.fromkeys(self._held.labels)}
        least = max(2.0, self.stream.min_share * max(counts.values(), default=0))
        classes = tuple(sorted(label for label, count in counts.items() if count >= least))
        if len(classes) < 2:
            return []
        whole = self._held.where([label in classes for label in self._held.labels])
        known = {label for info in self.memory.tasks for label in info.classes} | set(classes)
        early = self._held.where([label not in known for label in self._held.labels])
        numbers = torch.tensor([classes.index(label) for label in whole.labels])
        report = self.memory.learn(
            f"task {len(self.memory.tasks) + 1}",
            Examples(whole.images, numbers, classes),
            self.options,
            progress=self._progress,
            cancel=self._cancel,
        )
        self.left_out += len(self._held) - len(whole) - len(early)
        self._open(early)
        return [report]

    @torch.no_grad()
    def _unfamiliar(self, seen: HeldImages) -> HeldImages:
        """Without the images that a finished map answers right, and accepts as its own kind."""
        if not self.memory.tasks or not len(seen):
            return seen
        stranger = torch.cat([self._strange(seen.some(part)) for part in batches(len(seen), EVALUATION_BATCH)])
        self.passed += int((~stranger).sum())
        return seen.where(stranger.tolist())

    def _strange(self, seen: HeldImages) -> Tensor:
        given = pixels(seen.images.to(self.method.device))
        found = self.method.see(given)
        verdict = self.method.assess(given, found)
        levels = [ALPHA if level is None else level for level in verdict.levels]
        accepted = verdict.p_values > torch.tensor(levels)  # (B, T)
        strange = torch.ones(len(seen), dtype=torch.bool)
        for number, (info, logits) in enumerate(zip(self.memory.tasks, found.heads, strict=True)):
            places = {label: place for place, label in enumerate(info.classes)}
            right = logits.argmax(1) == torch.tensor([places.get(label, -1) for label in seen.labels])
            strange &= ~(right & accepted[:, number])
        return strange


class _OpenMap:
    """The map of the open task: it learns each accepted image once, and its surprise shows when the task has changed.

    Its head has a row for every label that may yet come, so that one which has never come surprises it most.
    """

    def __init__(self, method: Rmn, options: LearnOptions, stream: StreamOptions, generator: torch.Generator) -> None:
        rows = tuple(f"\0{number}" for number in range(stream.max_labels))  # no label of anybody's
        seed = int(torch.randint(0, 2**62, (1,), generator=generator))
        self._map = MapCandidate(method.shared, "open", rows, method.settings, seed).to(method.device)
        self._labels: dict[str, int] = {}
        self._options, self._device, self._generator = options, method.device, generator
        shape = method.definition.input
        sides = (shape.channels, shape.height, shape.width)
        size = options.batch_size
        context = LearnContext(options, seed, Reporter(), method.device, recipe=method.definition.recipe)
        steps = stream.hold // size
        self._regulariser = MapRegulariser(self._map, method.settings, context, size, steps, generator, sides)
        self._optimiser = self._regulariser.optimiser(list(self._map.parameters()))

    def _rows(self, labels: Sequence[str]) -> Tensor:
        for label in labels:
            self._labels.setdefault(label, len(self._labels))
        if len(self._labels) > len(self._map.classes):
            raise ExamplesError(f"more than {len(self._map.classes)} labels since the last switch; raise max_labels")
        return torch.tensor([self._labels[label] for label in labels])

    def learn(self, accepted: HeldImages) -> None:
        """One step for each batch of these."""
        self._map.train()
        if len(accepted) < 2:
            return
        for rows in batches(len(accepted), self._options.batch_size, self._generator):
            part = accepted.some(rows)
            images = pixels(part.images.to(self._device))
            loss = cross_entropy(self._map.logits(self._map(images, {})), self._rows(part.labels).to(self._device))
            for group in self._optimiser.param_groups:
                group["lr"] = self._options.learning_rate
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._optimiser.step()

    @torch.no_grad()
    def surprises(self, window: HeldImages) -> list[float]:
        """Each image's surprise, 1 for a label that was never learned."""
        self._map.eval()
        logits = self._map.logits(self._map(pixels(window.images.to(self._device)), {})).cpu()
        known = torch.tensor([self._labels.get(label, -1) for label in window.labels])
        found: list[float] = torch.where(known < 0, 1.0, surprise(logits, known.clamp_min(0))).tolist()
        return found


def learn_stream(
    memory: Memory,
    arriving: Iterable[Batch],
    options: LearnOptions | None = None,
    stream: StreamOptions | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> list[LearningReport]:
    """Learn a whole stream of labelled images; the reports of the tasks that were found in it.

    Raises
    ------
    InvalidDefinition, InvalidOptions, ImageError, ExamplesError, Cancelled, LearningFailed
        What `Stream` raises.
    """
    watched = Stream(memory, options, stream, progress=progress, cancel=cancel)
    reports = [report for images, labels in arriving for report in watched.see(images, labels)]
    return [*reports, *watched.finish()]


def _empty(memory: Memory) -> HeldImages:
    shape = memory.definition.input
    return HeldImages(torch.zeros(0, shape.channels, shape.height, shape.width, dtype=torch.uint8), ())
