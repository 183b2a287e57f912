"""Agreement of an engine's answers with those of the first engine, before a version is published."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

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
    for two labels that the first engine finds as probable, as far as logits that differ by so much can tell. Nothing is
    computed of a model that has the first engine.

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
    labels = sum(len(info.classes) for info in there.tasks)
    answers = zip(here.predict(probes), there.predict(probes, top_k=labels), strict=True)
    for number, (mine, theirs) in enumerate(answers, 1):
        if mine.known != theirs.known or not _alike(mine, theirs, lambda *tasks: _blur(there, tasks)):
            raise AnswersDiffer(
                f"{engine}: probe {number} is {mine.label!r} of {mine.task!r}, known {mine.known}, "
                f"instead of {theirs.label!r} of {theirs.task!r}, known {theirs.known}"
            )


def _blur(memory: Memory, tasks: Sequence[str]) -> float:
    """How far the logarithms of two labels' probabilities change at most with logits that differ within the bound."""
    probes, most = probe_batch(memory.definition.input), BOUNDS[memory.definition.precision]
    seen = [memory.observe(probes, task) for task in tasks]
    scaled = [
        found.logits(task).abs().max() / found.temperatures.min() for task, found in zip(tasks, seen, strict=True)
    ]
    least = max(float(1 / found.temperatures.min()) for found in seen)
    return 2 * most * max(least, *map(float, scaled))


def _alike(mine: Prediction, theirs: Prediction, blur: Callable[..., float]) -> bool:
    """Whether two answers are of the same label, or of two that one of them finds as probable but for what is blurred.

    Parameters
    ----------
    blur
        From the names of some tasks to how far the logarithms of probabilities may lie apart.
    """
    if (mine.task, mine.label) == (theirs.task, theirs.label):
        return True
    beside = [one.probability for one in theirs.top if (one.task, one.label) == (mine.task, mine.label)]
    if not beside or not beside[0] > 0:
        return False
    return math.log(theirs.top[0].probability / beside[0]) <= blur(*{mine.task, theirs.task})
