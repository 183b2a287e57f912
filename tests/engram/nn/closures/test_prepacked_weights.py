"""Tests of prepacked weights: a convolution has the same bytes with them, or does without them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engram.config.engines import Precision
from engram.nn.closures import prepacked_weights
from engram.nn.closures.engines import ENGINES
from engram.nn.closures.operations import Convolution
from engram.nn.closures.prepacked_weights import MOST_BY_FEW, MOST_IMAGES, PrepackedWeights, same_bytes
from engram.nn.closures.summation import ConvolutionKind
from engram.nn.network import Network
from engram.runtime import threads
from tests.engram.nn.reading import random_network

KINDS = (
    ConvolutionKind(3, 16, 3, 1, 1, torch.float32),
    ConvolutionKind(64, 64, 3, 1, 1, torch.float32),
    ConvolutionKind(64, 40, 3, 2, 1, torch.bfloat16),
    ConvolutionKind(128, 128, 1, 2, 0, torch.bfloat16),
    ConvolutionKind(1, 1, 3, 1, 1, torch.bfloat16),
)
SIZE = (9, 8)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of what was tried before, nor is anything kept."""
    monkeypatch.setattr(prepacked_weights, "same_bytes", same_bytes.__wrapped__)
    monkeypatch.setattr(prepacked_weights, "LEAST_WEIGHTS", 0)


def _convolution(kind: ConvolutionKind) -> tuple[Tensor, Tensor]:
    weight = torch.randn(kind.units, kind.channels, kind.kernel, kind.kernel).to(kind.dtype)
    return weight.contiguous(memory_format=torch.channels_last), torch.randn(kind.units).to(kind.dtype)


def _maps(kind: ConvolutionKind, count: int) -> Tensor:
    return torch.randn(count, kind.channels, *SIZE).to(kind.dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [1, 2])
def test_what_is_tried_has_the_bytes_of_a_plain_convolution(kind: ConvolutionKind, count: int, number: int) -> None:
    weight, bias = _convolution(kind)
    packed, maps = PrepackedWeights(weight, kind), _maps(kind, count)
    with threads(number), torch.no_grad():
        assert packed.convolved(maps, bias) is None, "it was not tried yet"
        packed.prove(len(maps), SIZE)
        found = packed.convolved(maps, bias)
        assert found is None or torch.equal(
            found, torch.nn.functional.conv2d(maps, weight, bias, kind.stride, kind.padding)
        )


def _require_used(kind: ConvolutionKind = KINDS[1]) -> tuple[PrepackedWeights, Tensor, Tensor]:
    weight, bias = _convolution(kind)
    packed, maps = PrepackedWeights(weight, kind), _maps(kind, 2)
    packed.prove(len(maps), SIZE)
    if packed.convolved(maps, bias) is None:
        pytest.skip("kernels of this processor give prepacked weights other bytes")
    return packed, maps, bias


def test_they_are_used_for_what_was_tried_alone() -> None:
    packed, maps, bias = _require_used()
    for other in (maps[:1], maps[:, :, :8], maps.repeat(2, 1, 1, 1)):
        assert packed.convolved(other.contiguous(memory_format=torch.channels_last), bias) is None
    with threads(1 if torch.get_num_threads() > 1 else 2):
        assert packed.convolved(maps, bias) is None


def test_where_they_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch has a kernel of its own for one float32 image; of many images or of few weights it is not worth it."""
    _require_used()
    _require_used(KINDS[0])
    many = MOST_IMAGES + 1
    for kind, count in ((KINDS[1], 1), (KINDS[1], many), (KINDS[2], many), (KINDS[0], MOST_BY_FEW + 1)):
        weight, bias = _convolution(kind)
        packed = PrepackedWeights(weight, kind)
        packed.prove(count, SIZE)
        assert packed.convolved(_maps(kind, count), bias) is None
    monkeypatch.setattr(prepacked_weights, "LEAST_WEIGHTS", 64 * 64 * 9 + 1)
    weight, bias = _convolution(KINDS[1])
    packed = PrepackedWeights(weight, KINDS[1])
    packed.prove(2, SIZE)
    assert packed.convolved(_maps(KINDS[1], 2), bias) is None


def test_maps_that_lie_otherwise_in_memory_are_convolved_plainly() -> None:
    packed, maps, bias = _require_used()
    assert packed.convolved(maps.contiguous(), bias) is None


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[2]])
def test_another_order_of_sums_is_found_out(monkeypatch: pytest.MonkeyPatch, kind: ConvolutionKind) -> None:
    _require_used(kind)
    plain = prepacked_weights._convolved
    turned = torch.randperm(kind.channels, generator=torch.Generator().manual_seed(0))

    packed = prepacked_weights._packed
    monkeypatch.setattr(prepacked_weights, "_packed", lambda weight, *given: packed(weight[:, turned], *given))
    monkeypatch.setattr(
        prepacked_weights,
        "_convolved",
        lambda values, *given: plain(values[:, turned].contiguous(memory_format=torch.channels_last), *given),
    )
    weight, bias = _convolution(kind)
    other, maps = PrepackedWeights(weight, kind), _maps(kind, 2)
    other.prove(len(maps), SIZE)
    assert other.convolved(maps, bias) is None


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
@pytest.mark.parametrize("name", ["_packed", "_convolved", "alike"])
def test_without_memory_for_a_trial_there_are_plain_ones(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], name: str
) -> None:
    def failing(*given: object) -> Tensor:
        raise error("there is no memory")

    _require_used(KINDS[2])
    weight, bias = _convolution(KINDS[2])
    other, maps = PrepackedWeights(weight, KINDS[2]), _maps(KINDS[2], 2)
    with monkeypatch.context() as patch:
        patch.setattr(prepacked_weights, name, failing)
        other.prove(len(maps), SIZE)
        assert other.convolved(maps, bias) is None
    other.prove(len(maps), SIZE)
    assert other.convolved(maps, bias) is not None, "it was not remembered"


def test_a_pytorch_that_has_none_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = _convolution(KINDS[2])
    packed, maps = PrepackedWeights(weight, KINDS[2]), _maps(KINDS[2], 2)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    packed.prove(len(maps), SIZE)
    assert packed.convolved(maps, bias) is None


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_do_without(copied: Callable[[PrepackedWeights], PrepackedWeights]) -> None:
    packed, maps, bias = _require_used()
    other, found = copied(packed), packed.convolved(maps, bias)
    assert other.convolved(maps, bias) is None
    other.prove(len(maps), SIZE)
    again = other.convolved(maps, bias)
    assert found is not None
    assert again is not None
    assert torch.equal(again, found)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_that_is_prepared_computes_with_them(monkeypatch: pytest.MonkeyPatch, precision: Precision) -> None:
    _require_used(KINDS[1] if precision == "fp32" else KINDS[2])
    plain, used = PrepackedWeights.convolved, list[bool]()

    def watched(self: PrepackedWeights, values: Tensor, bias: Tensor) -> Tensor | None:
        found = plain(self, values, bias)
        used.append(found is not None)
        return found

    monkeypatch.setattr(PrepackedWeights, "convolved", watched)
    drawn = random_network("resnet18", owners=1)
    monkeypatch.setattr("engram.nn.closures.plan.LEAST_WORK", 0)
    network = Network(drawn.layout, drawn.stack, engine=ENGINES["eager-1", precision])
    with monkeypatch.context() as patch:
        patch.setattr("engram.nn.closures.plan.MOST_SECONDS", -1.0)
        network.prepare()  # and there is no time for it
    images = torch.rand(4, 1, *network.layout.image_size)
    before = network.answer("task 0", images)
    assert not any(used)
    network.prepare()
    used.clear()
    after = network.answer("task 0", images)
    convolutions = [one for one, _, _ in network._planner.plan("task 0").operations if isinstance(one, Convolution)]
    assert len(used) == len(convolutions)
    assert any(used)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
