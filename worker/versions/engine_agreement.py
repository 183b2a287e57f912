"""Agreement of an engine's answers with those of the first engine, before a version is published."""

from __future__ import annotations

from collections.abc import Mapping

from engram.certificate import BOUNDS, disagreement, logit_bytes, probe_batch, probe_logits
from engram.config.engines import FIRST_ENGINE
from engram.errors import AnswersDiffer
from engram.memory import Memory, restore
from engram.methods import method_of
from engram.recognition.predictions import Prediction
from engram.snapshot import Parts


def require_agreement(parts: Parts, here: Memory, logits: Mapping[str, bytes]) -> None:
    """Raise AnswersDiffer where a model's engine answers the probes otherwise than the first engine.

    Logits are to lie within `engram.certificate.BOUNDS`; task, label and `known` of every probe are to be the same, but
    for two labels whose probabilities lie no further apart than twice that. Nothing is computed of a model that has the
    first engine.

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
    first = parts.definition.model_copy(update={"engine": FIRST_ENGINE})
    kept = parts.kept if method_of(first).lazy else None
    there = restore(first, parts.engrams, parts.recogniser, kept, parts.budget)
    engine = f"{parts.definition.engine} answers otherwise than {FIRST_ENGINE}"
    for task, its, _ in probe_logits(there, logits.keys(), every_shape=False):
        if (wrong := disagreement(logit_bytes(its), logits[task], parts.definition.precision)) is not None:
            raise AnswersDiffer(f"{engine}: of task {task!r} {wrong}")
    probes = probe_batch(parts.definition.input)
    bound = 2 * BOUNDS[parts.definition.precision]
    answers = zip(here.predict(probes), there.predict(probes), strict=True)
    for number, (mine, theirs) in enumerate(answers, 1):
        if mine.known != theirs.known or not _alike(mine, theirs, bound):
            raise AnswersDiffer(
                f"{engine}: probe {number} is {mine.label!r} of {mine.task!r}, known {mine.known}, "
                f"instead of {theirs.label!r} of {theirs.task!r}, known {theirs.known}"
            )


def _alike(mine: Prediction, theirs: Prediction, bound: float) -> bool:
    """Whether two answers are of the same label, or of two that one of them finds as probable but for a bound."""
    if (mine.task, mine.label) == (theirs.task, theirs.label):
        return True
    beside = [one.probability for one in theirs.top if (one.task, one.label) == (mine.task, mine.label)]
    return bool(beside) and theirs.probability - beside[0] <= bound
