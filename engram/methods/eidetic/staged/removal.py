"""Taking a task away again, exactly: what is left is what there would be if it had never been learned."""

from __future__ import annotations

from collections.abc import Sequence

from engram.errors import InputError
from engram.methods.eidetic.staged.staged_task import StagedTask
from engram.methods.eidetic.staged.stored_sums import StoredSums
from engram.nn.commons import Commons
from engram.recognition.staged.detectors import ValueDetector
from engram.recognition.staged.joined.joined_solution import JoinedSolution
from engram.recognition.staged.joined.output_deviations import OutputDeviations
from engram.recognition.staged.recogniser import StagedRecogniser, weights_of


def without(
    task: str, commons: Commons, recogniser: StagedRecogniser, tasks: Sequence[StagedTask], sums: StoredSums
) -> tuple[StagedRecogniser, tuple[StagedTask, ...], StoredSums]:
    """The recogniser, the tasks and the sums of a model less one of its tasks, by subtraction.

    Raises
    ------
    InputError
        for the first task, beside which all others are calibrated, and one whose units others read.
    """
    if task == sums.names[0]:
        raise InputError(f"all other tasks are calibrated beside {task!r}, the first one")
    readers = [
        other.name for other in tasks if other.engram and any(read.owner == task for read in other.engram.reads or ())
    ]
    if readers:
        raise InputError(f"units of {task!r} are read by {', '.join(map(repr, readers))}")
    left = tuple(one for one in tasks if one.name != task)
    totals = sums.totals(commons).minus(task, sums.sums(task))
    given = {name: one for name, one in sums.pairs(task).items() if name != task}
    changed = {name: sums.detector(name).minus(task, one) for name, one in given.items()}
    detectors = {name: one for name, one in recogniser.detectors.items() if name != task}
    detectors |= {name: ValueDetector.of(one) for name, one in changed.items()}
    known = tuple(one.known for one in left)
    weights, relative = weights_of(known, len(totals.each)), recogniser.space.relative
    outputs = commons.outputs() if relative is not None and relative.outputs is not None else None
    deviations = None if outputs is None else OutputDeviations.of(totals, outputs)
    space = JoinedSolution.of(totals, commons.ridges).space(weights, relative=relative is not None, outputs=deviations)
    found = StagedRecogniser(known, space, detectors, recogniser.adopted)
    return found, left, sums.minus(task, totals, changed)
