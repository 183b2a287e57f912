"""Tests of the agreement of an engine's answers with those of the first engine."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from engram import Memory
from engram.certificate import logit_bytes, probe_batch
from engram.config.engines import ONNX_RUNTIME_2
from engram.errors import AnswersDiffer
from engram.memory import dump, restore
from engram.recognition.predictions import Candidate, Prediction
from testing.data.patterns import QUICK, bars, definition
from worker.versions import engine_agreement
from worker.versions.engine_agreement import _alike, _blur, require_agreement


@pytest.mark.parametrize(("beside", "alike"), [(0.4985, True), (0.49, False), (0.0, False), (math.nan, False)])
def test_labels_of_two_engines_may_differ_where_both_are_as_probable(beside: float, alike: bool) -> None:
    top = (Candidate("task", "a", 0.5), Candidate("task", "b", beside))
    theirs = Prediction("task", 1.0, "a", 0.5, top, known=True, novelty=0.0)
    mine = replace(theirs, label="b", probability=0.5)
    assert _alike(mine, theirs, lambda *tasks: 0.004) is alike
    assert not _alike(replace(mine, label="c"), theirs, lambda *tasks: 0.004)
    assert _alike(theirs, theirs, lambda *tasks: 0.0)


def test_two_labels_that_are_as_probable_are_found_among_all_that_the_first_engine_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one of its answers alone would not say how probable the other is."""
    memory = Memory.create(definition("cnn"))
    memory.learn("task 0", bars(0), QUICK)
    parts = dump(memory)
    parts = replace(parts, definition=parts.definition.model_copy(update={"engine": ONNX_RUNTIME_2}))
    logits = {"task 0": logit_bytes(memory.observe(probe_batch(parts.definition.input), "task 0").logits("task 0"))}
    swapped = memory.predict(probe_batch(parts.definition.input))
    [other] = {*bars(0).classes} - {swapped[0].label}

    class Swapped:
        def predict(self, images: torch.Tensor) -> list[Prediction]:
            return [replace(swapped[0], label=other), *swapped[1:]]

    here: Any = Swapped()
    monkeypatch.setattr(engine_agreement, "_blur", lambda memory, tasks: 0.0)
    with pytest.raises(AnswersDiffer, match="probe 1 is"):
        require_agreement(parts, here, logits)
    monkeypatch.setattr(engine_agreement, "_blur", lambda memory, tasks: math.inf)
    require_agreement(parts, here, logits)


def test_larger_logits_and_lower_temperatures_leave_more_to_chance() -> None:
    memory = Memory.create(definition("cnn"))
    memory.learn("task 0", bars(0), QUICK)
    parts = dump(memory)
    observed = memory.observe(probe_batch(memory.definition.input), "task 0")
    temperature = float(observed.temperatures)
    largest = max(1.0, float(observed.logits("task 0").abs().max()))
    assert _blur(memory, ["task 0"]) == pytest.approx(2e-3 * largest / temperature)
    rest = parts.engrams, parts.recogniser, parts.kept, parts.budget
    sixteen = restore(parts.definition.model_copy(update={"precision": "bf16"}), *rest)
    assert _blur(sixteen, ["task 0"]) > 10 * _blur(memory, ["task 0"])
