"""Tests of the numbers of learning: fused steps, short passes, judging as served, order in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import BatchNorm2d, Conv2d, Module, Parameter
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer

from engram import LearnOptions, Memory
from engram.checkpointing.progress import Reporter
from engram.context import LearnContext
from engram.data.examples import batches
from engram.methods.eidetic.staged.learner import NEGATIVES
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.nn.backbones import layout_of
from engram.nn.blocks import MaxPoolBlock
from engram.nn.layout import Node
from engram.nn.network import Engram, Network, channels_last, pixels
from engram.nn.reads import Read
from engram.training.measuring import measure
from engram.training.optimisers import create_optimiser, optimiser_of
from engram.training.state import TrainingState
from engram.training.trainer import MOST_RECOVERED, Trainer
from testing.data.patterns import QUICK, bars, definition
from tests.engram.nn.reading import random_engram, random_network


def _context(number: int, options: LearnOptions = QUICK) -> LearnContext:
    return LearnContext(options, 0, Reporter(), torch.device("cpu"), learning=number)


def _engram() -> Engram:
    layout = layout_of(definition("cnn", 1))
    torch.manual_seed(0)
    return Engram(layout, "task", ("a", "b"), dict.fromkeys(layout.layers, 0), dict(layout.widths), ())


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_steps_are_taken_in_one_operation_since_number_2(name: str) -> None:
    options = QUICK.model_copy(update={"optimiser": name})
    steps = {}
    for number in (1, 2, 3):
        engram = _engram()
        optimiser = create_optimiser(_context(number, options), engram.parameters())
        assert bool(optimiser.defaults["fused"]) is (number > 1)
        for parameter in engram.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        before = [parameter._version for parameter in engram.parameters()]
        optimiser.step()
        assert all(parameter._version > old for parameter, old in zip(engram.parameters(), before, strict=True))
        steps[number] = torch.cat([parameter.detach().flatten() for parameter in engram.parameters()])
    torch.testing.assert_close(steps[2], steps[1])
    assert steps[3].equal(steps[2])


def test_an_epoch_of_fewer_batches_goes_on_where_it_stood() -> None:
    def state() -> TrainingState:
        module = torch.nn.Linear(2, 2)
        return TrainingState(module, torch.optim.SGD(module.parameters(), 0.1), torch.Generator().manual_seed(3))

    whole = state()
    taken = list(whole.batches(100, 8, most=5))
    assert [len(part) for part in taken] == [8] * 5
    assert torch.cat(taken).equal(torch.cat(list(batches(100, 8, torch.Generator().manual_seed(3)))[:5]))
    broken = state()
    for _ in broken.batches(100, 8, most=5):
        broken.stepped(1.0)
        if broken.step == 2:
            break
    later = state()
    later.restore(broken.state())
    assert torch.cat(list(later.batches(100, 8, most=5))).equal(torch.cat(taken[2:]))


def test_an_engram_is_judged_as_it_is_served() -> None:
    some, engram = bars(1, 40), _engram()
    engram.train()
    engram(pixels(some.images), {})  # for statistics that are not those of the first day
    network = Network(engram.layout)
    found, before = measure(network, engram, some, served=True), measure(network, engram, some)
    assert engram.training
    assert found.loss == pytest.approx(before.loss, rel=1e-4)
    logits = network.appended(engram.freeze()).answer("task", pixels(some.images))[1]
    right = (logits.argmax(1) == some.labels).double().mean()
    assert found.accuracy == float(right)
    assert found.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, some.labels)), rel=1e-6)


@pytest.mark.parametrize(("number", "steps"), [(1, 22), (2, MOST_RECOVERED // 128), (3, MOST_RECOVERED // 128)])
def test_a_pass_after_pruning_goes_over_some_thousand_images_at_most(number: int, steps: int) -> None:
    options = QUICK.model_copy(update={"batch_size": 128, "tolerance": 1.0})
    taken: list[int] = []

    def watched(parameters: Iterable[Parameter]) -> Optimizer:
        found = optimiser_of(options, parameters)
        taken.append(0)
        found.register_step_pre_hook(lambda *_: taken.append(taken.pop() + 1))
        return found

    Memory.create(definition("mlp", learning=number)).learn("first", bars(0, 1500), options, optimiser=watched)
    assert taken == [22, steps]


class _Behind(torch.optim.SGD):
    """An optimiser that changes what lies behind a weight, as many do that others have written."""

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(group["lr"] * parameter.grad)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    "made", [partial(torch.optim.Adam, fused=True), partial(_Behind, lr=0.05)], ids=["fused", "own"]
)
def test_what_an_optimiser_that_is_brought_has_changed_is_measured_anew(number: int, made: Any) -> None:
    options = QUICK.model_copy(update={"epochs": 4, "prune": False})
    memory = Memory.create(definition("mlp", learning=number))
    report = memory.learn("first", bars(0, 200), options, optimiser=made)
    told = [point.held_out_loss for point in report.curves if point.phase == "training"]
    assert len(told) == len(set(told)) == 4, "each epoch has a loss of its own"


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 1, 4, 5), (1, 1, 1, 1), (2, 7)])
def test_maps_with_the_channels_of_a_place_side_by_side_have_the_same_values(shape: tuple[int, ...]) -> None:
    values = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    for given in (
        values,
        values.to(memory_format=torch.channels_last) if values.ndim == 4 else values.T.contiguous().T,
    ):
        found = channels_last(given)
        assert found.equal(values)
        assert values.ndim == 2 or found.stride()[1:] == (1, shape[3] * shape[1], shape[1])


@contextmanager
def _convolutions() -> Iterator[list[tuple[bool, Tensor]]]:
    """What convolutions are given, and whether they are trained."""
    found: list[tuple[bool, Tensor]] = []

    def watch(module: Module, given: tuple[Tensor, ...], _: object) -> None:
        if isinstance(module, Conv2d):
            found.append((module.training, given[0]))

    hook = register_module_forward_hook(watch)
    try:
        yield found
    finally:
        hook.remove()


@contextmanager
def _normalisations() -> Iterator[set[bool]]:
    """Whether maps are normalised once they are pooled."""
    found: set[bool] = set()
    plain, after = MaxPoolBlock.rectified, MaxPoolBlock.normalised

    def rectified(self: MaxPoolBlock, own: Tensor) -> Tensor:
        found.add(False)
        return plain(self, own)

    def normalised(self: MaxPoolBlock, own: Tensor, norm: BatchNorm2d) -> Tensor:
        found.add(True)
        return after(self, own, norm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaxPoolBlock, "rectified", rectified)
        patch.setattr(MaxPoolBlock, "normalised", normalised)
        yield found


@pytest.mark.parametrize("backbone", ["cnn", "resnet18"])
def test_networks_are_trained_with_channels_side_by_side_since_number_3(backbone: str) -> None:
    options = QUICK.model_copy(update={"prune": False, "epochs": 1})
    for number in (2, 3):
        memory = Memory.create(definition(backbone, learning=number))
        memory.learn("first", bars(0), options)
        with _convolutions() as seen, _normalisations() as normalised:
            memory.learn("second", bars(1), options)
        assert {maps.stride(1) == 1 for trained, maps in seen if trained} == {number > 2}
        assert normalised == ({number > 2} if backbone == "cnn" else set()), "the small residual network has no pools"
        assert all(parameter.is_contiguous() for parameter in _engram_of(memory, "second").parameters())


def _engram_of(memory: Memory, task: str) -> Engram:
    assert isinstance(memory.method, StagedEidetic)
    (found,) = (one.engram for one in memory.method.staged if one.name == task)
    assert found is not None
    return found


@pytest.mark.parametrize("number", [2, 3])
def test_a_tasks_own_detector_learns_from_some_thousand_images_since_number_3(number: int) -> None:
    some = bars(0, 1200)
    memory = Memory.create(definition("mlp", learning=number))
    memory.learn("first", some, QUICK.model_copy(update={"epochs": 1, "prune": False}))
    assert isinstance(memory.method, StagedEidetic)
    counted = int(memory.method.required_sums().detector("first").counts.sum())
    held_out = round(QUICK.held_out * len(some))
    assert counted == (len(some) if number < 3 else NEGATIVES + held_out)


def test_a_detector_of_many_classes_learns_from_some_images_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.methods.eidetic.staged.learner.NEGATIVES", 16)
    monkeypatch.setattr("engram.methods.eidetic.staged.learner.OF_EACH_CLASS", 12)
    some = bars(0, 40)
    memory = Memory.create(definition("mlp"))
    memory.learn("first", some, QUICK)
    assert isinstance(memory.method, StagedEidetic)
    counted = memory.method.required_sums().detector("first").counts.tolist()
    assert counted == [12 + round(QUICK.held_out * 40)] * 2


@pytest.mark.parametrize("least", [0.5, -0.5])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
def test_maxima_are_normalised_as_whole_maps_would_be(kernel: int, stride: int, padding: int, least: float) -> None:
    torch.manual_seed(1)
    norm = torch.nn.BatchNorm2d(5, momentum=0.3)
    with torch.no_grad():
        norm.weight.uniform_(least, 1.5)
        norm.bias.uniform_(-0.5, 0.5)
    node = Node("pool", "max_pool", ("conv",), "conv", None, kernel=kernel, stride=stride, padding=padding)
    block = MaxPoolBlock(node)
    whole = channels_last(torch.randn(6, 5, 8, 8) * 3 + 1)
    found = []
    for fused in (False, True):
        its, own = copy.deepcopy(norm), whole.clone().requires_grad_(True)
        given = block.normalised(own, its) if fused else torch.relu(block.pool(its(own)))
        assert (type(given.grad_fn).__name__ == "_NormalisedMaximumBackward") is (fused and least > 0)
        (given * torch.arange(given.numel()).reshape(given.shape).sin()).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        assert own.grad is not None
        values = [given.detach(), own.grad, *(one.grad for one in its.parameters()), *its.buffers()]
        found.append([one.double() for one in values if one is not None])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert len(found[0]) == 7


def test_what_is_read_of_other_tasks_lies_in_memory_as_the_images_do() -> None:
    options, some = QUICK.model_copy(update={"augment": "none"}), bars(1, 40)
    network = random_network("cnn", owners=2, seed=1)
    reads = [Read(network.stack[0].task, {"conv1": torch.arange(3), "conv2": torch.arange(2)})]
    engram = random_engram(network.layout, "reader", reads, network.layout.widths).requires_grad_(True).train()
    trainer = replace(Trainer.alone(network.layout, some, some, _context(3, options)), network=network)
    with _convolutions() as seen:
        trainer._step(engram, create_optimiser(_context(3, options), engram.parameters()), torch.arange(16), 0)
    layers = [maps for trained, maps in seen if trained]
    assert len(layers) == 3
    assert any(maps.shape[1] > engram.units["conv1"] for maps in layers[1:]), "the second reads more than its own"
    assert all(maps.stride(1) == 1 for maps in layers)


@pytest.mark.parametrize(("count", "momentum"), [(1, 0.1), (8, None)])
def test_what_has_no_statistics_of_a_batch_is_left_to_pytorch(count: int, momentum: float | None) -> None:
    norm = torch.nn.BatchNorm2d(3, momentum=momentum)
    block = MaxPoolBlock(Node("pool", "max_pool", ("conv",), "conv", None, kernel=1, stride=1))
    maps = channels_last(torch.randn(count, 3, 1, 1))
    if count == 1:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            block.normalised(maps, norm)
    else:
        expected = torch.relu(copy.deepcopy(norm)(maps))
        assert block.normalised(maps, norm).equal(expected)
    assert norm.running_var is not None
    assert bool(norm.running_var.isfinite().all())
