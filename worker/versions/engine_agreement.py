"""Agreement of an engine's answers with those of the first engine, before a version is published."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from engram.certificate import BOUNDS, disagreement, logit_bytes, probe_batch, probe_logits
from engram.config.engines import FIRST_ENGINE, FIRST_PRECISION
from engram.errors import AnswersDiffer
from engram.memory import Memory, restore
from engram.methods import method_of
from engram.recognition.predictions import Observation, Prediction
from engram.recognition.staged.observation import StagedObservation
from engram.snapshot import Parts

FARTHER = 2.0
"""How many times as far as the first engine's an engine's logits of 16 bits may lie from those of float32: two that
round otherwise can lie far from each other, and each as near to what is meant as the other."""


def require_agreement(parts: Parts, here: Memory, logits: Mapping[str, bytes]) -> None:
    """Raise AnswersDiffer where a model's engine answers the probes otherwise than the first engine.

    Logits are to lie within `engram.certificate.BOUNDS`, in 16 bits else no more than `FARTHER` times as far from those
    of float32 as the first engine's; task, label and `known` of every probe are to be the same, but for two labels that
    the first engine finds as probable, see `_as_probable`. Nothing is computed of a model that has the first engine.

    Parameters
    ----------
    parts
        What the model is made of.
    here
        The model with its own engine, which is to answer.
    logits
        Of the tasks to compare, what it answered, as `logit_bytes` gives it.
    """
    if parts.definition.engine == FIRST_ENGINE:
        return
    precision = parts.definition.precision
    there = _by_first_engine(parts)
    engine = f"{parts.definition.engine} answers otherwise than {FIRST_ENGINE}"
    for task, its, _ in probe_logits(there, logits.keys(), every_shape=False):
        wrong = disagreement(logit_bytes(its), logits[task], precision)
        if wrong is not None and (precision == FIRST_PRECISION or not _as_near(parts, task, logits[task], its)):
            raise AnswersDiffer(f"{engine}: of task {task!r} {wrong}")
    for number, mine, theirs in _differing(here, there, BOUNDS[precision]):
        raise AnswersDiffer(
            f"{engine}: probe {number} is {mine.label!r} of {mine.task!r}, known {mine.known}, "
            f"instead of {theirs.label!r} of {theirs.task!r}, known {theirs.known}"
        )


def _by_first_engine(parts: Parts, **fields: object) -> Memory:
    """The same model, answered by the first engine."""
    first = parts.definition.model_copy(update={"engine": FIRST_ENGINE, **fields})
    kept = parts.kept if method_of(first).lazy else None
    return restore(first, parts.engrams, parts.recogniser, kept, parts.budget)


def _as_near(parts: Parts, task: str, mine: bytes, theirs: Tensor) -> bool:
    """Whether logits of 16 bits lie about as near to those of float32 as the first engine's do."""
    [(_, exact, _)] = probe_logits(_by_first_engine(parts, precision=FIRST_PRECISION), [task], every_shape=False)
    own = torch.frombuffer(bytearray(mine), dtype=torch.float32)
    if own.numel() != exact.numel():
        return False
    most = BOUNDS[parts.definition.precision] * max(1.0, float(exact.abs().max()))
    return float((own.view_as(exact) - exact).abs().max()) <= FARTHER * max(most, float((theirs - exact).abs().max()))


def _differing(here: Memory, there: Memory, most: float) -> Iterator[tuple[int, Prediction, Prediction]]:
    """The probes that two engines answer otherwise, counted from 1, with what each of them answers.

    Parameters
    ----------
    most
        How far logits may lie apart, in multiples of the largest.
    """
    probes = probe_batch(here.definition.input)
    theirs = there.observe(probes)
    pairs = zip(here.predict(probes), theirs.predictions(), strict=True)
    for row, (one, other) in enumerate(pairs):
        same = one.task != other.task or one.known == other.known  # of another task another thing may be known
        if same and (one.task, one.label) != (other.task, other.label):
            moved = [_moved(here, there, task, probes, row, most) for task in {one.task, other.task}]
            same = _as_probable(theirs, row, one, other, most, sum(moved))
        if not same:
            yield row + 1, one, other


def _as_probable(theirs: Observation, row: int, one: Prediction, other: Prediction, most: float, moved: float) -> bool:
    """Whether an engine finds another answer for a probe as probable as its own.

    Parameters
    ----------
    one
        The other answer.
    other
        Its own one.
    most
        Probabilities that are no further apart than twice this are as good as equal.
    moved
        The same of their logarithms.
    """
    deciding, joined = theirs.probabilities(), False
    if isinstance(theirs, StagedObservation):
        deciding, labels = theirs.decided, theirs.labels
        joined = labels is not None and labels.joined and one.label != other.label
    named = [(info.name, label) for info in theirs.tasks for label in info.classes]

    def probability(answer: Prediction) -> float:
        chosen = [joined or task == answer.task for task, _ in named]
        own = [use and label == answer.label for use, (_, label) in zip(chosen, named, strict=True)]
        return float(deciding[row, torch.tensor(own)].sum())

    best, found = probability(other), probability(one)
    return best - found <= 2 * most or (found > 0 and math.log(best / found) <= moved)


def _moved(here: Memory, there: Memory, task: str, probes: Tensor, row: int, most: float) -> float:
    """How far two engines' logits of a task move the logarithms of its probabilities on a probe."""
    mine, theirs = here.observe(probes, task), there.observe(probes, task)
    logits = theirs.logits(task)
    apart = float((mine.logits(task) - logits)[row].abs().max())
    return 2 * min(apart, most * max(1.0, float(logits.abs().max()))) / float(theirs.temperatures.min())
