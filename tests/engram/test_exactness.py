"""Tests of exactness: equal logits and heatmaps of old tasks, whatever is learned later."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from engram import Memory
from engram.certificate import probe_batch
from testing.data.patterns import QUICK, bars, definition, network_of

BACKBONES = ("mlp", "cnn", "resnet18", "resnet50")


_OPTIMISERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "sgd": lambda parameters: SGD(parameters, lr=1e-2, momentum=0.9),
    "adam": lambda parameters: Adam(parameters, lr=1e-2),
    "adamw": lambda parameters: AdamW(parameters, lr=1e-2, weight_decay=0.1),
}


class Carried:
    """One optimiser for a whole life: it keeps every parameter it was given, with all its state, and steps them all.

    Parameters of earlier runs get a gradient of zeros, so that momentum, Adam's averages and weight decay go on moving
    them. That is what forgetting looks like where frozen weights are only masked.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.optimiser: Optimizer | None = None
        self.moved = 0.0

    def __call__(self, given: Iterable[nn.Parameter]) -> Optimizer:
        parameters = list(given)
        if self.optimiser is None:
            self.optimiser = _OPTIMISERS[self.kind](parameters)
        else:
            stale = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
            before = [parameter.detach().clone() for parameter in stale]

            def drag(*_: object) -> None:
                for parameter in stale:
                    parameter.grad = torch.zeros_like(parameter)

            def note(*_: object) -> None:
                moved = (float((now.detach() - then).abs().max()) for now, then in zip(stale, before, strict=True))
                self.moved = max(self.moved, *moved)

            self.optimiser.register_step_pre_hook(drag)
            self.optimiser.register_step_post_hook(note)
            self.optimiser.add_param_group({"params": parameters})
        return self.optimiser


@dataclass
class Life:
    """A model's life, with what each task answered on the day it was learned."""

    memory: Memory
    carried: Carried
    logits: dict[str, bytes] = field(default_factory=dict)
    heatmaps: dict[str, bytes] = field(default_factory=dict)

    def learn(self, task: int) -> None:
        name = f"task {task}"
        self.memory.learn(name, bars(task), QUICK, optimiser=self.carried)
        self.logits[name] = bytes_of(logits(self.memory, name))
        self.heatmaps[name] = bytes_of(heatmap(self.memory, name))


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def probes(memory: Memory) -> Tensor:
    return probe_batch(memory.definition.input)


def logits(memory: Memory, task: str) -> Tensor:
    return memory.observe(probes(memory)).logits(task)


def heatmap(memory: Memory, task: str) -> Tensor:
    return memory.explain(probes(memory)[-1], task=task).relevance


def assert_unchanged(life: Life, memory: Memory) -> None:
    for task in life.logits:
        assert bytes_of(logits(memory, task)) == life.logits[task], f"{task} answers with other bytes"
        assert bytes_of(heatmap(memory, task)) == life.heatmaps[task], f"{task} is explained with other bytes"


_READER = """
import hashlib, json, sys
import torch
from engram import Memory
from engram.certificate import digest, probe_batch
torch.set_num_threads(int(sys.argv[1]))
for folder in sys.stdin:
    memory = Memory.load(folder.strip())
    probes = probe_batch(memory.definition.input)
    seen = memory.observe(probes)
    answers = {}
    for info in memory.tasks:
        relevance = memory.explain(probes[-1], task=info.name).relevance
        answers[info.name] = [digest(seen.logits(info.name)), digest(relevance)]
    print(json.dumps(answers), flush=True)
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    """A process that has never learned: it reads folders of saved models and prints the digests of their answers."""
    command = [sys.executable, "-c", _READER, str(torch.get_num_threads())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


LIVES = [
    pytest.param(
        (backbone, optimiser, "selected"),
        # AdamW moves by momentum, by averages and by decay.
        marks=[pytest.mark.slow] if "resnet" in backbone and (backbone, optimiser) != ("resnet18", "adamw") else [],
    )
    for backbone in BACKBONES
    for optimiser in _OPTIMISERS
]
WHOLE = [
    ("mlp", "sgd", "all"),
    ("cnn", "adamw", "all"),
    pytest.param(("resnet18", "adam", "all"), marks=pytest.mark.slow),
]
"""Backbones and optimisers of models whose tasks read all before them, for what is promised of these alone as well."""


@pytest.fixture(scope="module", params=[*LIVES, *WHOLE], ids="-".join)
def life(request: pytest.FixtureRequest) -> Life:
    backbone, optimiser, reads = request.param
    life = Life(Memory.create(definition(backbone, budget=2.5, settings={"reads": reads})), Carried(optimiser))
    for task in range(2):
        life.learn(task)
    return life


def test_old_answers_stay_whatever_is_learned_and_saved(
    life: Life, reader: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert_unchanged(life, life.memory)
    assert life.carried.moved > 0, "the carried optimiser was to move what it still held, or this proves nothing"

    life.memory.raise_budget(4.0)
    assert_unchanged(life, life.memory)
    life.learn(2)
    assert_unchanged(life, life.memory)

    life.memory.save(tmp_path)
    assert reader.stdin is not None
    assert reader.stdout is not None
    print(tmp_path, file=reader.stdin, flush=True)
    elsewhere = json.loads(reader.stdout.readline())
    expected = {task: [sha256(life.logits[task]), sha256(life.heatmaps[task])] for task in life.logits}
    assert elsewhere == expected, "a new process answers with other bytes"
    life.learn(3)
    assert_unchanged(life, life.memory)


@pytest.mark.parametrize("life", WHOLE, indirect=True, ids="-".join)
def test_nothing_of_a_later_task_is_read(life: Life) -> None:
    stack = network_of(life.memory).stack
    for owner, engram in enumerate(stack[:-1]):
        poisoned = [
            block.register_forward_hook(lambda module, given, output: torch.full_like(output, torch.nan))
            for later in stack[owner + 1 :]
            for block in later.blocks.values()
        ]
        try:
            last = logits(life.memory, stack[-1].task)
            assert last.isnan().all(), "the poison was to reach the last head, or this proves nothing"
            assert bytes_of(logits(life.memory, engram.task)) == life.logits[engram.task]
            assert bytes_of(heatmap(life.memory, engram.task)) == life.heatmaps[engram.task]
        finally:
            for hook in poisoned:
                hook.remove()


def test_frozen_units_are_ordinary_modules_without_gradients(life: Life) -> None:
    modules = list(network_of(life.memory).modules())
    assert any(isinstance(module, nn.Linear) for module in modules)
    assert not any(parameter.requires_grad for parameter in network_of(life.memory).parameters())
    assert not any(module.training for module in modules)
