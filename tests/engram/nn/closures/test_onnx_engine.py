"""Tests of ONNX Runtime as the engine of tasks' networks."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from pydantic import ValidationError

from engram import Memory
from engram.certificate import certify
from engram.config.engines import ONNX_RUNTIME_2
from engram.errors import AnswersDiffer, EngineMissing
from engram.memory import dump
from engram.nn import onnx_network
from engram.nn.closures import onnx_engine
from engram.nn.closures.engines import ENGINES, FIRST
from engram.nn.closures.operations import Convolution, Dense
from engram.nn.network import Network
from engram.training.measuring import measure
from testing.data.patterns import QUICK, bars, definition
from tests.engram.nn.reading import random_engram, random_network
from worker.versions.verification import verify

installed = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))), reason="the extra onnx is not installed"
)
BACKBONES = ("cnn", "resnet18", "resnet50")


def _by_onnx(network: Network) -> Network:
    return Network(network.layout, network.stack, engine=ENGINES[ONNX_RUNTIME_2, "fp32"])


def _images(network: Network, count: int) -> torch.Tensor:
    return torch.rand(count, network.layout.channels, *network.layout.image_size)


@installed
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("channels", [1, 3])
def test_its_answers_lie_near_those_of_pytorch(backbone: str, channels: int) -> None:
    """Of tasks that read units of each other, in maps and in dense layers."""
    network = random_network(backbone, owners=3, seed=channels, channels=channels)
    images, other = _images(network, 5), _by_onnx(network)
    assert any(engram.reads for engram in network.stack)
    for engram in network.stack:
        for found, expected in zip(other.answer(engram.task, images), network.answer(engram.task, images), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@installed
@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_image_has_the_same_bytes_whatever_is_beside_it(backbone: str) -> None:
    network = _by_onnx(random_network(backbone, owners=2))
    images = _images(network, 40)
    for engram in network.stack:
        alone = torch.cat([network.answer(engram.task, image)[1] for image in torch.split(images, 1)])
        for count in (2, 3, 7, 16, 21, 40):
            rows = torch.randperm(40, generator=torch.Generator().manual_seed(count))[:count].sort().values.numpy()
            assert torch.equal(network.answer(engram.task, images, rows)[1], alone[rows]), count
        loud = images.clone()
        loud[1:] *= 1e4
        assert torch.equal(network.answer(engram.task, loud)[1][0], alone[0])


@installed
def test_nothing_is_padded_and_products_of_matrices_stay_with_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    network, seen = _by_onnx(random_network("cnn", owners=1)), list[tuple[str, int]]()
    network.answer("task 0", _images(network, 1))
    engine = onnx_engine.OnnxEngine(FIRST)
    engine.prepare(network._planner.plan("task 0"), network.stack[0])
    kept = engine._kept[network.stack[0]]
    session = kept.session
    assert session is not None

    def run(outputs: None, given: Mapping[str, Any]) -> Any:
        seen.append(("onnx", len(given["0"])))
        return session.run(outputs, given)

    plain = Dense.__call__

    def dense(self: Dense, values: torch.Tensor) -> torch.Tensor:
        seen.append(("dense", len(values)))
        return plain(self, values)

    kept.session = session._replace(run=run)
    monkeypatch.setattr(Dense, "__call__", dense)
    monkeypatch.setattr(Convolution, "__call__", lambda self, values: pytest.fail("a convolution by PyTorch"))
    Network(network.layout, network.stack, engine=engine).answer("task 0", _images(network, 9), numpy.arange(7))
    assert seen == [("onnx", 7), ("dense", 7)]


@installed
def test_other_default_numbers_change_nothing() -> None:
    network, images = random_network("cnn", owners=1), torch.rand(3, 1, 12, 12)
    expected = _by_onnx(network).answer("task 0", images)[1]
    torch.set_default_dtype(torch.float64)
    try:
        again = Network(network.layout, [network.stack[0].frozen_copy()], engine=ENGINES[ONNX_RUNTIME_2, "fp32"])
        assert torch.equal(again.answer("task 0", images)[1], expected)
    finally:
        torch.set_default_dtype(torch.float32)


@installed
def test_a_session_is_kept_for_all_versions_that_have_the_engram(monkeypatch: pytest.MonkeyPatch) -> None:
    made, plain = list[str](), onnx_engine._session

    def counted(*given: Any) -> onnx_engine.Session:
        made.append(given[2].task)
        return plain(*given)

    monkeypatch.setattr(onnx_engine, "_session", counted)
    network = random_network("cnn", owners=2)
    for some in (_by_onnx(network), _by_onnx(network)):
        for task in ("task 0", "task 1"):
            some.answer(task, _images(network, 2))
    assert made == ["task 0", "task 1"]


@installed
def test_a_network_that_learns_on_is_judged_by_what_it_is_now() -> None:
    network = _by_onnx(random_network("cnn", owners=1))
    examples = bars(0, side=network.layout.image_size[0])
    engram = random_engram(network.layout, "new", (), network.stack[0].units)
    weight = next(engram.blocks.parameters())
    before = measure(network, engram, examples, served=True)
    weight.data += 0.5
    after = measure(network, engram, examples, served=True)
    assert after.loss != before.loss
    assert after.loss == measure(network, engram.frozen_copy(), examples, served=True).loss
    first = network.appended(engram.freeze()).answer("new", examples.images / 255.0)[1]
    weight.data += 0.5
    assert not torch.equal(network.appended(engram).answer("new", examples.images / 255.0)[1], first)


@installed
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_runtime_whose_bytes_depend_on_neighbours_is_refused(
    monkeypatch: pytest.MonkeyPatch, count: int, dead: bool
) -> None:
    """Of a network, too, that gives all images the same."""
    plain = onnx_network.one_thread

    class Differing:
        def __init__(self, *given: Any, **options: Any) -> None:
            self._session = plain(*given, **options)

        def run(self, outputs: None, given: Mapping[str, Any]) -> list[Any]:
            found = self._session.run(outputs, given)
            return [value * numpy.float32(1 + 2.0**-20) if len(value) == count else value for value in found]

    monkeypatch.setattr(onnx_engine, "one_thread", Differing)
    network = _by_onnx(random_network("resnet18", owners=1))
    for name, value in network.stack[0].state_dict().items():
        value -= 100 * (dead and name.endswith("norm.bias"))
    with pytest.raises(EngineMissing, match="other bytes beside others"):
        network.answer("task 0", _images(network, 2))


@installed
def test_earlier_answers_stay_the_same_bytes_and_are_certified_by_its_name(tmp_path: Path) -> None:
    memory = Memory.create(definition("cnn", engine=ONNX_RUNTIME_2))
    memory.learn("task 0", bars(0), QUICK)
    images = bars(0).images[:9]
    before = memory.observe(images).logits("task 0")
    empty = certify(memory)
    memory.learn("task 1", bars(1), QUICK)
    assert torch.equal(memory.observe(images).logits("task 0"), before)
    alone = torch.cat([memory.observe(image).logits("task 0") for image in torch.split(images, 1)])
    assert torch.equal(alone, before)
    assert empty.engine == ONNX_RUNTIME_2
    assert str(empty.environment["engine"]).startswith("onnxruntime ")
    memory.save(tmp_path)
    assert torch.equal(Memory.load(tmp_path).observe(images).logits("task 0"), before)


@installed
def test_a_version_that_it_answers_otherwise_than_the_first_engine_is_not_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = Memory.create(definition("cnn", engine=ONNX_RUNTIME_2))
    before = certify(memory)
    memory.learn("task 0", bars(0), QUICK)
    parts, plain = dump(memory), onnx_engine._written
    assert verify(parts, before, "task 0", 1.0).engine == ONNX_RUNTIME_2

    def planted(steps: Any, *given: Any, **options: Any) -> bytes:
        for operation in (one for one, _, _ in steps if isinstance(one, Convolution)):
            operation.bias += 0.5
        return plain(steps, *given, **options)

    monkeypatch.setattr(onnx_engine, "_written", planted)
    with pytest.raises(AnswersDiffer, match="onnxruntime-2 answers otherwise than eager-1"):
        verify(parts, before, "task 0", 1.0)


@pytest.mark.parametrize(
    "fields",
    [{"backbone": "mlp"}, {"precision": "bf16"}, {"settings": {"reads": "all"}}, {"method": "rnf"}],
    ids=["dense", "16 bits", "reads all", "another method"],
)
def test_what_it_has_no_use_for_is_refused_by_name(fields: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError, match="onnxruntime-2"):
        definition(**{"backbone": "cnn", "engine": ONNX_RUNTIME_2, **fields})


def test_where_it_is_not_installed_the_model_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_network, "_PACKAGES", ("no_such_package",))
    with pytest.raises(EngineMissing, match=r"no_such_package.*engram-vision\[onnx\]"):
        Memory.create(definition("cnn", engine=ONNX_RUNTIME_2))
