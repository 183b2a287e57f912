"""Tests of mixed precision: the laws of learning, refusals, and certificates that name it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer

from engram import LearnOptions, Memory, runtime
from engram.certificate import Certificate, certify, probe_batch
from engram.errors import InvalidOptions, PrecisionMissing
from engram.memory import dump
from engram.runtime import has_bf16
from engram.snapshot import Parts
from engram.streams import Stream
from engram.training.optimisers import optimiser_of
from testing.data.checkpoints import InMemory, Killed, dying
from testing.data.patterns import QUICK, bars, definition, learned
from tests.engram.methods.staged import over_networks
from tests.engram.methods.test_methods import again, defined

CPU = torch.device("cpu")

MIXED = QUICK.model_copy(update={"mixed_precision": True})
LONGER = MIXED.model_copy(update={"epochs": 2, "rounds": 2})

computed = pytest.mark.skipif(not has_bf16(CPU), reason="this processor has no bf16")


@contextmanager
def watching() -> Iterator[dict[bool, set[torch.dtype]]]:
    """Types of what convolutions and linear layers give, of those that are trained and of all others."""
    found: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def watch(module: nn.Module, _: object, given: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            found[given.requires_grad and module.training].add(given.dtype)

    hook = register_module_forward_hook(watch)
    try:
        yield found
    finally:
        hook.remove()


@computed
@pytest.mark.parametrize("backbone", ["mlp", "cnn", "resnet18"])
def test_training_alone_is_in_bfloat16_over_weights_in_float32(backbone: str) -> None:
    updated: set[torch.dtype] = set()

    def watched(parameters: Iterable[nn.Parameter]) -> Optimizer:
        given = list(parameters)
        found = optimiser_of(MIXED, given)
        found.register_step_pre_hook(
            lambda *_: updated.update(one.dtype for each in given for one in (each, each.grad) if one is not None)
        )
        return found

    for options, trained in ((QUICK, torch.float32), (MIXED, torch.bfloat16)):
        memory = Memory.create(definition(backbone))
        with watching() as seen:
            report = memory.learn("task 0", bars(0), options, optimiser=watched)
        assert (seen[True], updated) == ({trained}, {torch.float32})
        assert seen[False] <= {torch.float32}, "what is measured, scored or summed is in float32"
        assert report.options["mixed_precision"] is options.mixed_precision
        assert report.accuracy["kept"] > 0.9


@computed
def test_what_is_learned_depends_on_the_option_and_is_the_same_every_time() -> None:
    some, others = (dump(learned("cnn", 1, options)) for options in (QUICK, MIXED))
    memory = Memory.create(definition())
    memory.learn("task 0", bars(0), MIXED)
    assert some != others == dump(memory)


@computed
@pytest.mark.parametrize("options", [QUICK, MIXED], ids=["float32", "mixed"])
def test_earlier_answers_stay_the_same_bytes(options: LearnOptions) -> None:
    memory = learned("cnn", 2, options)
    probes = probe_batch(memory.definition.input)
    before = {task.name: memory.observe(probes).logits(task.name) for task in memory.tasks}
    memory.learn("task 2", bars(2), MIXED if options is QUICK else QUICK)
    for name, logits in before.items():
        assert torch.equal(memory.observe(probes).logits(name), logits)
    assert certify(again(dump(memory))).tasks == certify(memory).tasks


def _learned(parts: Parts, options: LearnOptions, checkpoints: InMemory | None = None) -> tuple[Parts, int]:
    memory = again(parts)
    report = memory.learn("task 1", bars(1), options, checkpoints=checkpoints)
    return dump(memory), report.resumed


@computed
@pytest.mark.parametrize("backbone", ["cnn", "resnet18"])
def test_a_run_that_is_killed_goes_on_in_mixed_precision(backbone: str) -> None:
    parts, drawn = dump(learned(backbone, 1, MIXED)), random.Random(backbone)
    whole, _ = _learned(parts, LONGER)
    checkpoints = InMemory(every=1)
    for _ in range(2):
        with pytest.raises(Killed):
            again(parts).learn("task 1", bars(1), LONGER, checkpoints=checkpoints, cancel=dying(drawn.randint(20, 45)))
    in_float32 = LONGER.model_copy(update={"mixed_precision": False})
    left = checkpoints.checkpoint
    assert _learned(parts, LONGER, checkpoints) == (whole, 2)
    checkpoints.checkpoint = left
    assert _learned(parts, in_float32, checkpoints) == (_learned(parts, in_float32)[0], 0), "it is of other options"


@computed
def test_blocks_over_a_network_are_trained_in_it() -> None:
    memory = over_networks.created("adapter")
    with watching() as seen:
        report = memory.learn("task 0", over_networks.pictures(0), MIXED)
    assert seen[True] == {torch.bfloat16}
    assert seen[False] <= {torch.float32}
    assert report.accuracy["kept"] > 0.5


@pytest.mark.parametrize("name", ["eidetic, reads all", "eidetic, recipe 2", "rnf", "rerelrp", "rmn", "sharc"])
def test_methods_that_would_know_nothing_of_it_refuse(name: str) -> None:
    memory = Memory.create(defined(name))
    with pytest.raises(InvalidOptions, match="mixed_precision needs answers in stages"):
        memory.learn("task 0", bars(0), MIXED)
    assert memory.tasks == ()
    if name == "rmn":
        with pytest.raises(InvalidOptions, match="mixed_precision"):
            Stream(memory, MIXED)


def test_models_without_networks_to_train_refuse() -> None:
    with pytest.raises(InvalidOptions, match="backbone none has none"):
        over_networks.created("none").learn("task 0", over_networks.pictures(0), MIXED)


def test_a_machine_without_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_CPU_FILE", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu avx512f\n")
    runtime._of_processor.cache_clear()
    try:
        memory = Memory.create(definition("mlp"))
        with pytest.raises(PrecisionMissing, match="mixed_precision"):
            memory.learn("task 0", bars(0), MIXED)
        memory.learn("task 0", bars(0), QUICK)
    finally:
        runtime._of_processor.cache_clear()


def test_options_without_it_are_stored_as_before() -> None:
    assert "mixed_precision" not in LearnOptions().stored()
    assert LearnOptions.model_validate(MIXED.stored()) == MIXED


@pytest.mark.parametrize("tasks", [frozenset[str](), frozenset({"b"})])
def test_certificates_name_the_tasks_that_were_learned_in_it(tasks: frozenset[str]) -> None:
    made = Certificate({"a": "0", "b": "1"}, {}, mixed_precision=tasks)
    told: Any = made.to_dict()
    assert [row.get("mixed_precision", False) for row in told["tasks"]] == ["a" in tasks, "b" in tasks]
    assert Certificate.from_dict(told) == made
    later = Certificate({"c": "2"}, {}, mixed_precision=frozenset({"c"}))
    assert later.following(made).mixed_precision == tasks | {"c"}
