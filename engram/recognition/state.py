"""The state of task recognition: a recogniser, the commons it reads, and the sums it is solved from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from engram.config.definition import Definition
from engram.context import LearnContext
from engram.data.examples import Examples
from engram.errors import AnswersOnly
from engram.nn.commons import Commons, commons_of
from engram.nn.serialization import dump_commons, load_commons
from engram.recognition.heads.head_balance import calibrated
from engram.recognition.leave_one_out import left_out_scores
from engram.recognition.recogniser import PARTS, Recogniser
from engram.recognition.ridge import PackedGram, RidgeSystem, dump_sums, load_sums
from engram.recognition.serialization import check_profiles, dump_recogniser, load_recogniser
from engram.recognition.task_density import TaskDensity, noise_features
from engram.recognition.training import GatheredStatistics, PrefixStatistics, See, gather, solved


@dataclass(frozen=True)
class RecogniserState:
    """The commons, the recogniser and the sums of a model; `update` gives those of one task more.

    Parameters
    ----------
    commons
        The fixed features that the recogniser reads, in eval mode.
    sums
        Of each task in order; None where a model was restored to answer only.
    """

    commons: Commons
    recogniser: Recogniser
    sums: tuple[PackedGram, ...] | None

    @classmethod
    def create(cls, definition: Definition, parts: Sequence[str] = PARTS, *, ridge: bool = True) -> Self:
        """That of a model without a task.

        Parameters
        ----------
        parts
            What tasks are recognised by.
        ridge
            Whether class scores are a ridge regression over the commons; a method may have others.
        """
        commons = commons_of(definition).eval()
        return cls(commons, Recogniser.empty(commons.features if ridge else 0, parts), ())

    @classmethod
    def load(
        cls, definition: Definition, commons: bytes, recogniser: bytes, sums: Sequence[bytes] | None
    ) -> RecogniserState:
        """The inverse of `dump`, with `sums` None for a model that will only answer.

        Raises
        ------
        DamagedSnapshot, UnsupportedFormat
        """
        kept = None if sums is None else tuple(map(load_sums, sums))
        return cls(load_commons(definition, commons).eval(), load_recogniser(recogniser), kept)

    def check(self, tasks: Sequence[str]) -> Self:
        """Itself, if it is of these tasks; raises DamagedSnapshot."""
        check_profiles(self.recogniser, tasks)
        return self

    def dump(self) -> tuple[bytes, bytes, tuple[bytes, ...]]:
        """The commons, the recogniser and the sums of each task as bytes; raises AnswersOnly."""
        sums = tuple(map(dump_sums, self.required_sums()))
        return dump_commons(self.commons), dump_recogniser(self.recogniser), sums

    def required_sums(self) -> tuple[PackedGram, ...]:
        """The sums of each task; raises AnswersOnly where the model was restored without them."""
        if self.sums is None:
            raise AnswersOnly("the model was restored without the sums of its tasks, which learning and saving need")
        return self.sums

    @property
    def device(self) -> torch.device:
        """Where the commons compute."""
        return self.commons.device

    def to(self, device: torch.device | str) -> None:
        """Move the commons to a device, in place; the recogniser stays on the CPU."""
        self.commons.to(device)

    @property
    def temperatures(self) -> Tensor:
        """(T,): what divides the logits of each task's head."""
        return torch.stack([profile.temperature for profile in self.recogniser.profiles])

    def update(
        self,
        task: str,
        see: See,
        train: Examples,
        held_out: Examples,
        context: LearnContext,
        gathered: GatheredStatistics | None = None,
        *,
        chained: bool = False,
    ) -> RecogniserUpdate:
        """The state that knows the task that `see` sees last; nothing of this one is changed.

        Parameters
        ----------
        gathered
            What `gather` gave for the same images, if it was called already.
        chained
            Whether earlier tasks' detectors learn to tell this one from theirs: only where their features never
            change.

        Raises
        ------
        Cancelled, AnswersOnly
        """
        earlier, reporter, device, recogniser = self.required_sums(), context.reporter, context.device, self.recogniser
        commons = self.commons.fitted(train.images, reporter).eval()
        gathered = gathered or gather(commons, see, train, held_out, reporter, device)
        sums, common = gathered.sums, gathered.common
        features, head = gathered.held_out.features, gathered.held_out.head
        classes, tasks = len(train.classes), len(recogniser.profiles) + 1
        prefixes = PrefixStatistics.empty(tasks if chained else 0, classes)
        prefixes = prefixes.read(see, train, reporter, device) if chained else prefixes
        balance, head, temperature = calibrated(head, held_out, train, context.recipe)
        own, by_class = TaskDensity.fitted(commons, sums, common, train, held_out, context), context.recipe > 1
        profile = own.profile(task, classes, temperature, balance)
        recogniser = replace(recogniser, profiles=(*recogniser.profiles, profile))
        pieces = (*earlier, prefixes.packed(sums))
        recogniser = solved(recogniser, pieces, RidgeSystem.of(pieces, by_class=by_class))
        reporter.report("recognising", 0.85)
        evidence = recogniser.evidence_of(features, common)
        recogniser = recogniser.calibrated(*evidence)
        given = recogniser.log_probabilities(*evidence).argmax(1)
        right = given == tasks - 1
        hits = head.argmax(1) == held_out.labels
        if not by_class:
            recogniser = recogniser.with_combined_score(evidence[0], own.distances)
        # What was held out has served its purpose, and exact sums only gain by it.
        packed = prefixes.plus(features, held_out.labels).packed(sums.plus(common, held_out.labels))
        system = RidgeSystem.of((*earlier, packed), by_class=by_class)
        recogniser = solved(recogniser, (*earlier, packed), system)
        if by_class:
            recogniser = _scored(recogniser, system, packed, own)
            recogniser = recogniser.tried(noise_features(commons, context, *train.images.shape[1:]))
        reporter.report("recognising", 1.0)
        accuracy, recognised, answered = (float(share.double().mean()) for share in (hits, right, right & hits))
        state = RecogniserState(commons, recogniser, (*earlier, packed))
        novelty = recogniser.profiles[-1].novelty(len(held_out))
        return RecogniserUpdate(state, hits, given, accuracy, recognised, answered, novelty)


def _scored(recogniser: Recogniser, system: RidgeSystem, piece: PackedGram, own: TaskDensity) -> Recogniser:
    """The recogniser whose newest task judges by what its own images score, each left out of `system`."""
    number, first = len(system.shares) - 1, system.moments.shape[1] - len(piece.counts)
    scores = left_out_scores(system, piece, number, own.features, own.labels, first)
    return recogniser.with_combined_score(scores, own.distances)


@dataclass(frozen=True)
class RecogniserUpdate:
    """A recogniser state that knows one task more, and how it does on the task's held-out images.

    Of these, `accuracy` is the share that the task's head answers right, `recognised` the share that is given to the
    task among all tasks so far, `answered` the share that is given to the task and to the right class.
    """

    state: RecogniserState
    hits: Tensor
    """(M,) bool: which held-out images the task's head answers right."""
    given: Tensor
    """(M,) int64: the number of the task that each of them is given to."""
    accuracy: float
    recognised: float
    answered: float
    novelty: dict[str, object]
    """By how many scores of the task, and up to which p-value, an image is called unknown."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the order of their numbers."""
        return tuple(profile.task for profile in self.state.recogniser.profiles)
