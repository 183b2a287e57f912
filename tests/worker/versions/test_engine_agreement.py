"""Tests of the agreement of an engine's answers with those of the first engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

from engram import Memory
from engram.certificate import logit_bytes, probe_batch
from engram.config.engines import ONNX_RUNTIME_2
from engram.errors import AnswersDiffer
from engram.memory import dump
from engram.nn.capacity import TaskInfo
from engram.recognition.predictions import Observation, Prediction
from engram.recognition.staged.observation import Labels, StagedObservation
from engram.runtime import has_bf16
from engram.snapshot import Parts
from testing.data.patterns import QUICK, bars, definition
from worker.versions import engine_agreement
from worker.versions.engine_agreement import _as_near, _as_probable, _moved, require_agreement

TASKS = (TaskInfo("A", ("cat", "dog"), {}), TaskInfo("B", ("cat", "owl"), {}))


def _observed(decided: list[float], *, joined: bool, told: list[float] | None = None) -> StagedObservation:
    deciding = torch.tensor([decided])
    nothing = torch.zeros(1, 2)
    return StagedObservation(
        TASKS,
        (),
        torch.ones(2),
        nothing,
        nothing,
        decided=deciding,
        told=deciding if told is None else torch.tensor([told]),
        labels=Labels.of(TASKS, joined),
    )


def _answer(task: str, label: str) -> Prediction:
    return Prediction(task, 1.0, label, 1.0, (), known=True, novelty=0.0)


@pytest.mark.parametrize(
    ("beside", "moved", "probable"),
    [
        (0.4985, 0.0, True),
        (0.49, 0.0, False),
        (0.49, 0.03, True),
        (0.45, 0.03, False),
        (0.0, math.inf, False),
        (0.4, math.nan, False),
        (math.nan, math.inf, False),
    ],
)
def test_another_label_is_taken_where_the_first_engine_finds_it_as_probable(
    beside: float, moved: float, probable: bool
) -> None:
    seen = _observed([0.5, beside, 0.0, 0.0], joined=False)
    assert _as_probable(seen, 0, _answer("A", "dog"), _answer("A", "cat"), 1e-3, moved) is probable


def test_probabilities_are_those_that_decide() -> None:
    """Of classes of unequal size the one that is answered may be told as the less probable one."""
    seen = _observed([0.6, 0.4, 0.0, 0.0], joined=False, told=[0.02, 0.98, 0.0, 0.0])
    assert not _as_probable(seen, 0, _answer("A", "dog"), _answer("A", "cat"), 1e-3, 0.0)


def test_a_label_that_tasks_share_counts_for_both_and_may_be_either_ones() -> None:
    shared, apart = (partial(_observed, [0.25, 0.4985, 0.25, 0.0], joined=joined) for joined in (True, False))
    cat, dog = _answer("A", "cat"), _answer("A", "dog")
    assert _as_probable(shared(), 0, dog, cat, 1e-3, 0.0)
    assert not _as_probable(apart(), 0, cat, dog, 1e-3, 0.0)
    assert _as_probable(shared(), 0, _answer("B", "cat"), _answer("A", "cat"), 1e-3, 0.0)
    unlike = _observed([0.3, 0.4, 0.2, 0.1], joined=True)
    assert not _as_probable(unlike, 0, _answer("B", "cat"), _answer("A", "cat"), 1e-3, 0.0)


@cache
def _learned(precision: str = "fp32") -> tuple[Parts, Memory]:
    memory = Memory.create(definition("cnn", precision=precision))
    memory.learn("task 0", bars(0), QUICK)
    parts = dump(memory)
    return replace(parts, definition=parts.definition.model_copy(update={"engine": ONNX_RUNTIME_2})), memory


class Answering:
    """A model that answers as another but for what is planted."""

    def __init__(self, memory: Memory, planted: Callable[[list[Prediction]], list[Prediction]], shift: float) -> None:
        self.definition = memory.definition
        self._memory, self._planted, self._shift = memory, planted, shift

    def predict(self, images: Tensor) -> list[Prediction]:
        return self._planted(self._memory.predict(images))

    def observe(self, images: Tensor, task: str | None = None) -> Observation:
        found = self._memory.observe(images, task)
        return replace(found, heads=tuple(head + self._shift for head in found.heads))


def _logits(memory: Memory) -> Tensor:
    return memory.observe(probe_batch(memory.definition.input), "task 0").logits("task 0")


def test_another_label_for_one_probe_is_refused_unless_it_is_as_probable(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, memory = _learned()

    def swapped(answers: list[Prediction]) -> list[Prediction]:
        [other] = {*bars(0).classes} - {answers[4].label}
        return [*answers[:4], replace(answers[4], label=other), *answers[5:]]

    here: Any = Answering(memory, swapped, 0.0)
    logits = {"task 0": logit_bytes(_logits(memory))}
    require_agreement(parts, memory, logits)
    with pytest.raises(AnswersDiffer, match="probe 5 is"):
        require_agreement(parts, here, logits)
    monkeypatch.setattr(engine_agreement, "_moved", lambda *given: math.inf)
    require_agreement(parts, here, logits)

    def unknown(answers: list[Prediction]) -> list[Prediction]:
        found = swapped(answers)
        return [*found[:4], replace(found[4], known=not found[4].known), *found[5:]]

    stranger: Any = Answering(memory, unknown, 0.0)
    with pytest.raises(AnswersDiffer, match="probe 5 is"):
        require_agreement(parts, stranger, logits)


def test_what_is_known_of_a_probe_may_not_differ() -> None:
    parts, memory = _learned()
    here: Any = Answering(memory, lambda answers: [replace(answers[0], known=not answers[0].known), *answers[1:]], 0.0)
    with pytest.raises(AnswersDiffer, match="probe 1 is"):
        require_agreement(parts, here, {})


def test_logits_move_the_logarithms_of_probabilities_by_their_difference_and_by_no_more_than_the_bound() -> None:
    _, memory = _learned()
    probes, logits = probe_batch(memory.definition.input), _logits(memory)
    temperature = float(memory.observe(probes, "task 0").temperatures)
    most = 1e-3 * max(1.0, float(logits.abs().max()))
    for shift, expected in ((0.0, 0.0), (most / 2, most / 2), (1.0, most)):
        here: Any = Answering(memory, list, shift)
        found = _moved(here, memory, "task 0", probes, 3, 1e-3)
        assert found == pytest.approx(2 * expected / temperature, rel=1e-2, abs=1e-9)


@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="this processor has no instructions for bf16")
def test_logits_of_16_bits_may_lie_as_far_from_the_first_engines_as_that_from_float32() -> None:
    parts, memory = _learned("bf16")
    wide = replace(parts, definition=parts.definition.model_copy(update={"precision": "fp32"}))
    exact, theirs = _logits(engine_agreement._by_first_engine(wide)), _logits(memory)
    most = 2 * max(0.02 * max(1.0, float(exact.abs().max())), float((theirs - exact).abs().max()))
    for share, near in ((0.9, True), (-0.9, True), (1.1, False), (math.nan, False)):
        assert _as_near(parts, "task 0", logit_bytes(exact + share * most), theirs) is near
        logits = {"task 0": logit_bytes(exact + share * most)}
        if near:
            require_agreement(parts, memory, logits)
        else:
            with pytest.raises(AnswersDiffer, match="logits differ by"):
                require_agreement(parts, memory, logits)
    assert not _as_near(parts, "task 0", logit_bytes(exact[:-1]), theirs)
