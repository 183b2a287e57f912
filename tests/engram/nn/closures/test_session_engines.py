"""Laws of the engines that compute tasks' networks by a runtime beside PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from pydantic import ValidationError

from engram import Memory
from engram.certificate import certify
from engram.config.engines import FIRST_PRECISION, ONNX_RUNTIME_2, OPENVINO, EngineName, Precision
from engram.errors import AnswersDiffer, EngineMissing
from engram.memory import dump
from engram.nn.closures.engines import ENGINES
from engram.nn.closures.operations import Convolution, Dense
from engram.nn.closures.sessions import SessionEngine, Values
from engram.nn.network import Network
from engram.nn.runtimes import RUNTIMES, InferenceRuntime
from engram.runtime import has_bf16
from engram.training.measuring import measure
from testing.data.patterns import QUICK, bars, definition
from tests.engram.nn.reading import random_engram, random_network
from worker.versions.verification import verify

BACKBONES = ("cnn", "resnet18", "resnet50")


@dataclass(frozen=True)
class Kind:
    """An engine that is tested, and the precision that it computes in."""

    engine: EngineName
    precision: Precision

    def of(self, network: Network) -> Network:
        """The same engrams, answered by it."""
        return Network(network.layout, network.stack, engine=ENGINES[self.engine, self.precision])

    def eager(self, network: Network) -> Network:
        """The same, answered by PyTorch in its precision."""
        return Network(network.layout, network.stack, engine=ENGINES["eager-1", self.precision])

    @property
    def fields(self) -> dict[str, Any]:
        """Of a definition."""
        precision = {} if self.precision == FIRST_PRECISION else {"precision": self.precision}
        return {"engine": self.engine, **precision}

    @property
    def missing(self) -> str | None:
        """What it cannot be tested without here."""
        runtime = RUNTIMES[self.engine]
        if not all(map(importlib.util.find_spec, runtime.packages)):
            return f"the extra {runtime.extra} is not installed"
        if self.precision == "bf16" and not has_bf16(torch.device("cpu")):
            return "this processor has no instructions for bf16"
        return None


KINDS = (Kind(ONNX_RUNTIME_2, "fp32"), Kind(OPENVINO, "fp32"), Kind(OPENVINO, "bf16"))


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind.engine} {kind.precision}")
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each in turn."""
    found: Kind = request.param
    if found.missing is not None:
        pytest.skip(found.missing)
    return found


def _images(network: Network, count: int) -> torch.Tensor:
    return torch.rand(count, network.layout.channels, *network.layout.image_size)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("channels", [1, 3])
def test_its_answers_lie_near_those_of_pytorch(kind: Kind, backbone: str, channels: int) -> None:
    """Of tasks that read units of each other, in maps and in dense layers."""
    network = random_network(backbone, owners=3, seed=channels, channels=channels)
    images, other, eager = _images(network, 5), kind.of(network), kind.eager(network)
    assert any(engram.reads for engram in network.stack)
    for engram in network.stack:
        for found, expected in zip(other.answer(engram.task, images), eager.answer(engram.task, images), strict=True):
            near = (1e-5 if kind.precision == "fp32" else 4e-2) * float(expected.abs().max())
            torch.testing.assert_close(found, expected, rtol=0, atol=near)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_image_has_the_same_bytes_whatever_is_beside_it(kind: Kind, backbone: str) -> None:
    network = kind.of(random_network(backbone, owners=2))
    images = _images(network, 40)
    for engram in network.stack:
        alone = torch.cat([network.answer(engram.task, image)[1] for image in torch.split(images, 1)])
        for count in (2, 3, 7, 16, 21, 40):
            rows = torch.randperm(40, generator=torch.Generator().manual_seed(count))[:count].sort().values.numpy()
            assert torch.equal(network.answer(engram.task, images, rows)[1], alone[rows]), count
        loud = images.clone()
        loud[1:] *= 1e4
        assert torch.equal(network.answer(engram.task, loud)[1][0], alone[0])


def test_nothing_is_padded_and_products_of_matrices_stay_with_pytorch(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, seen = kind.of(random_network("cnn", owners=1)), list[tuple[str, int]]()
    network.answer("task 0", _images(network, 1))
    engine = ENGINES[kind.engine, kind.precision]
    assert isinstance(engine, SessionEngine)
    kept = engine._kept[network.stack[0]]
    session, plain = kept.session, Dense.__call__
    assert session is not None

    def run(images: Values, rows: Sequence[int] | None) -> Sequence[Values]:
        assert rows is not None
        seen.append(("runtime", len(rows)))
        return session.run(images, rows)

    def dense(self: Dense, values: torch.Tensor) -> torch.Tensor:
        seen.append(("dense", len(values)))
        return plain(self, values)

    monkeypatch.setattr(kept, "session", session._replace(run=run))
    monkeypatch.setattr(Dense, "__call__", dense)
    monkeypatch.setattr(Convolution, "__call__", lambda self, values: pytest.fail("a convolution by PyTorch"))
    kind.of(network).answer("task 0", _images(network, 9), numpy.arange(7))
    assert seen == [("runtime", 7), ("dense", 7)]


def test_other_default_numbers_change_nothing(kind: Kind) -> None:
    network, images = random_network("cnn", owners=1), torch.rand(3, 1, 12, 12)
    expected = kind.of(network).answer("task 0", images)[1]
    torch.set_default_dtype(torch.float64)
    try:
        again = kind.of(Network(network.layout, [network.stack[0].frozen_copy()]))
        assert torch.equal(again.answer("task 0", images)[1], expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_session_is_kept_for_all_versions_that_have_the_engram(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, made = ENGINES[kind.engine, kind.precision], list[str]()
    assert isinstance(engine, SessionEngine)
    plain = engine._session

    def counted(*given: Any) -> Any:
        made.append(given[2].task)
        return plain(*given)

    monkeypatch.setattr(engine, "_session", counted)
    network = random_network("cnn", owners=2)
    for some in (kind.of(network), kind.of(network)):
        for task in ("task 0", "task 1"):
            some.answer(task, _images(network, 2))
    assert made == ["task 0", "task 1"]


def test_a_network_that_learns_on_is_judged_by_what_it_is_now(kind: Kind) -> None:
    network = kind.of(random_network("cnn", owners=1))
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


def test_earlier_answers_stay_the_same_bytes_and_are_certified_by_its_name(kind: Kind, tmp_path: Path) -> None:
    memory = Memory.create(definition("cnn", **kind.fields))
    memory.learn("task 0", bars(0), QUICK)
    images = bars(0).images[:9]
    before = memory.observe(images).logits("task 0")
    empty = certify(memory)
    memory.learn("task 1", bars(1), QUICK)
    assert torch.equal(memory.observe(images).logits("task 0"), before)
    alone = torch.cat([memory.observe(image).logits("task 0") for image in torch.split(images, 1)])
    assert torch.equal(alone, before)
    assert empty.engine == kind.engine
    assert empty.environment["engine"] == RUNTIMES[kind.engine].version()
    memory.save(tmp_path)
    assert torch.equal(Memory.load(tmp_path).observe(images).logits("task 0"), before)


def test_a_version_that_it_answers_otherwise_than_the_first_engine_is_not_verified(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory.create(definition("cnn", **kind.fields))
    before = certify(memory)
    memory.learn("task 0", bars(0), QUICK)
    parts, engine = dump(memory), ENGINES[kind.engine, kind.precision]
    assert isinstance(engine, SessionEngine)
    plain = engine.compiled
    assert verify(parts, before, "task 0", 1.0).engine == kind.engine

    def planted(steps: Any, *given: Any) -> Any:
        for operation in (one for one, _, _ in steps if isinstance(one, Convolution)):
            operation.bias += 0.5
        return plain(steps, *given)

    monkeypatch.setattr(engine, "compiled", planted)
    with pytest.raises(AnswersDiffer, match=f"{kind.engine} answers otherwise than eager-1"):
        verify(parts, before, "task 0", 1.0)


@pytest.mark.parametrize("engine", [ONNX_RUNTIME_2, OPENVINO])
@pytest.mark.parametrize(
    "fields", [{"backbone": "mlp"}, {"settings": {"reads": "all"}}, {"method": "rnf"}], ids=["dense", "all", "rnf"]
)
def test_what_it_has_no_use_for_is_refused_by_name(engine: EngineName, fields: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError, match=engine):
        definition(**{"backbone": "cnn", "engine": engine, **fields})


@pytest.mark.parametrize("engine", [ONNX_RUNTIME_2, OPENVINO])
def test_where_it_is_not_installed_the_model_is_refused_by_name(
    engine: EngineName, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = RUNTIMES[engine]
    absent = InferenceRuntime(runtime.name, ("no_such_package",), runtime.extra)
    monkeypatch.setitem(RUNTIMES, engine, absent)
    with pytest.raises(EngineMissing, match=rf"no_such_package.*engram-vision\[{runtime.extra}\]"):
        Memory.create(definition("cnn", engine=engine))
