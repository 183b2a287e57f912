"""Tests of ONNX Runtime as the engine of networks that were brought: exactness, agreement, refusals."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import cast

import pytest
import torch
from pydantic import ValidationError

from engram import Definition, Memory
from engram.certificate import certify
from engram.config.engines import ONNX_RUNTIME, ONNX_RUNTIME_2, OPENVINO, EngineName
from engram.errors import AnswersDiffer, EngineMissing
from engram.memory import dump
from engram.nn import onnx_network
from engram.nn.onnx_network import OnnxNetwork
from engram.nn.pretrained.backbone import Backbone
from engram.nn.pretrained.network import PretrainedNetwork, network
from engram.nn.pretrained.taps import Seen
from engram.nn.runtimes import RUNTIMES, InferenceRuntime
from testing.data.patterns import QUICK, definition
from tests.engram.methods.staged.over_networks import (
    CONVOLUTIONS,
    TOKENS,
    brought,
    created,
    everything,
    model,
    pictures,
)
from worker.versions.verification import verify

installed = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))), reason="the extra onnx is not installed"
)


def over(name: str, architecture: str = CONVOLUTIONS, engine: EngineName = ONNX_RUNTIME) -> Memory:
    """A model over a network, answered by ONNX Runtime."""
    found = brought(architecture)
    fields = created(name).definition.model_dump(exclude_unset=True) | {"engine": engine}
    return Memory.create(Definition.model_validate(fields), {"net": Backbone(found.description, lambda: found.file)})


def seen_by_pytorch(name: str) -> PretrainedNetwork:
    """A network as `eager-1` runs it."""
    found = brought(name)
    return network(found.description, lambda: found.file)


@installed
def test_it_sees_what_pytorch_sees() -> None:
    plain = seen_by_pytorch(CONVOLUTIONS)
    images = everything(1)
    found = OnnxNetwork(plain, images[:2])
    for image in torch.split(images, 1):
        here, there = found.look(image), plain.look(image)
        pairs = zip((*here.levels, here.features), (*there.levels, there.features), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert (here.logits is None) == (there.logits is None)


@installed
def test_attention_is_refused_when_the_model_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineMissing, match=f"cannot be given {TOKENS}"):
        over("several", TOKENS)
    assert capsys.readouterr().out == ""


@installed
def test_a_network_that_it_computes_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_network, "BOUND", 0.0)
    with pytest.raises(AnswersDiffer, match="otherwise than PyTorch"):
        OnnxNetwork(seen_by_pytorch(CONVOLUTIONS), everything(1))


@installed
@pytest.mark.parametrize("engine", [ONNX_RUNTIME, ONNX_RUNTIME_2])
def test_earlier_answers_and_those_beside_others_stay_the_same_bytes(engine: EngineName, tmp_path: Path) -> None:
    memory, images = over("adapter", engine=engine), everything(1)
    memory.learn("task 0", pictures(0), QUICK)
    before = memory.observe(images).logits("task 0")
    memory.learn("task 1", pictures(1), QUICK)
    assert torch.equal(memory.observe(images).logits("task 0"), before)
    commons = model(memory).commons
    alone = torch.cat([commons.look(image).features for image in torch.split(images, 1)])
    assert torch.equal(commons.look(images).features, alone)
    certificate = certify(memory)
    assert certificate.engine == engine
    networks = cast(list[dict[str, str]], certificate.environment["networks"])
    assert [named["engine"].split()[0] for named in networks] == ["onnxruntime"]
    memory.save(tmp_path)
    assert torch.equal(Memory.load(tmp_path).observe(images).logits("task 0"), before)


@installed
def test_a_version_that_it_answers_otherwise_than_the_first_engine_is_not_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = over("adapter")
    before = certify(memory)
    memory.learn("task 0", pictures(0), QUICK)
    parts = dump(memory)
    assert verify(parts, before, "task 0", 1.0).engine == ONNX_RUNTIME
    seen = OnnxNetwork._seen

    def planted(self: OnnxNetwork, prepared: torch.Tensor) -> Seen:
        there = seen(self, prepared)
        return there._replace(levels=tuple(level * 1.01 for level in there.levels), features=there.features * 1.01)

    monkeypatch.setattr(OnnxNetwork, "_seen", planted)
    with pytest.raises(AnswersDiffer, match="onnxruntime-1 answers otherwise than eager-1"):
        verify(parts, before, "task 0", 1.0)


def test_models_over_pixels_have_no_use_for_it() -> None:
    with pytest.raises(ValidationError, match="onnxruntime-1"):
        definition(engine=ONNX_RUNTIME)


def test_openvino_does_not_compute_networks_that_were_brought() -> None:
    with pytest.raises(ValidationError, match=r"openvino-1 .* onnxruntime-1"):
        over("adapter", engine=OPENVINO)


def test_where_it_is_not_installed_the_model_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = InferenceRuntime("ONNX Runtime", ("no_such_package",), "onnx")
    monkeypatch.setitem(RUNTIMES, ONNX_RUNTIME, absent)
    with pytest.raises(EngineMissing, match=r"no_such_package.*engram-vision\[onnx\]"):
        over("adapter")
