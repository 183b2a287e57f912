"""Tests of bf16: rows and earlier answers as exact as ever; where it is named, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from engram import Definition, Memory, runtime
from engram.certificate import certify, disagreement, logit_bytes, probe_batch
from engram.errors import PrecisionMissing
from engram.nn.closures.engines import ENGINES
from engram.nn.network import Network
from engram.nn.shapes import SHAPES
from engram.runtime import has_bf16
from testing.data.patterns import bars, definition, learned
from tests.engram.nn.reading import random_network, slow_answers

CPU = torch.device("cpu")

computed = pytest.mark.skipif(not has_bf16(CPU), reason="this processor has no bf16")


def halved(network: Network) -> Network:
    """The same network in bf16."""
    return Network(network.layout, network.stack, engine=ENGINES["eager-1", "bf16"])


@pytest.fixture(scope="module")
def memory() -> Memory:
    """A model in bf16 with two tasks."""
    return learned("cnn", precision="bf16")


@computed
@pytest.mark.parametrize("backbone", ["cnn", "resnet18", "resnet50"])
def test_answers_are_near_those_of_the_slow_reference(backbone: str) -> None:
    network = random_network(backbone, owners=3, seed=1)
    images = torch.rand(5, 1, *network.layout.image_size)
    whole = network.answer("task 1", images)
    features, logits = halved(network).answer("task 1", images)
    assert (features.dtype, logits.dtype) == (torch.float32, torch.float32)
    assert not torch.equal(logits, whole[1]), "it is not bf16"
    for found, expected in zip((features, logits), slow_answers(network, images)["task 1"], strict=True):
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=5e-2)


@computed
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("backbone", "channels", "width"),
    [("cnn", 3, 1.0), ("cnn", 1, 0.3), ("resnet18", 3, 0.25), pytest.param("resnet50", 3, 0.1, marks=pytest.mark.slow)],
)
def test_an_answer_depends_on_no_neighbour_and_no_row(backbone: str, channels: int, width: float, threads: int) -> None:
    network = halved(random_network(backbone, owners=2, seed=channels, channels=channels, width=width))
    side, generator = network.layout.image_size, torch.Generator().manual_seed(0)
    image = torch.rand(channels, *side, generator=generator)
    with runtime.threads(threads):
        for shape in SHAPES:
            answers = []
            for row in sorted({0, shape // 2, shape - 1}):
                images = torch.rand(shape, channels, *side, generator=generator) * 1e4
                images[row] = image
                features, logits = network.answer("task 1", images)
                answers.append(torch.cat([features[row], logits[row]]))
            assert all(torch.equal(answer, answers[0]) for answer in answers), shape


@computed
def test_earlier_answers_stay_the_same_bytes(memory: Memory, tmp_path: Path) -> None:
    probes = probe_batch(memory.definition.input)
    before = memory.observe(probes).logits("task 0")
    later = Memory(memory.method.current())
    later.learn("task 2", bars(2))
    assert torch.equal(later.observe(probes).logits("task 0"), before)
    later.save(tmp_path)
    again = Memory.load(tmp_path)
    assert again.definition.precision == "bf16"
    assert torch.equal(again.observe(probes).logits("task 0"), before)


@computed
def test_what_is_served_is_what_learning_judged(memory: Memory) -> None:
    """The same weights in float32 answer otherwise; certificates say which of both it was."""
    fields = memory.definition.model_dump() | {"precision": "fp32"}
    whole = learned("cnn")
    assert whole.definition == Definition.model_validate(fields)
    half, full = certify(memory), certify(whole)
    assert half.environment["precision"] == "bf16"
    assert "precision" not in full.environment
    assert half.tasks != full.tasks
    assert half.elsewhere(full) is not None
    heatmap = memory.explain(bars(0).images[0], task="task 0")
    assert bool(heatmap.relevance.isfinite().all())


def test_definitions_without_it_keep_their_bytes() -> None:
    assert "precision" not in definition().stored()
    half = definition(precision="bf16").stored()
    assert half["precision"] == "bf16"
    assert Definition.load(half).precision == "bf16"
    assert Definition.load(definition().stored()).precision == "fp32"


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "mlp"},
        {"method": "rnf"},
        {"recipe": 2},
        {"settings": {"reads": "all"}},
        {"precision": "fp16"},
    ],
)
def test_what_has_no_stages_or_no_convolutions_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="bf16"):
        definition(**{"precision": "bf16", **changes})


def test_a_machine_without_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = definition(precision="bf16")
    for told, there in (
        ("model name\t: a\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx512f\n", False),
        ("", False),
    ):
        monkeypatch.setattr(runtime, "_CPU_FILE", tmp_path / "cpuinfo")
        (tmp_path / "cpuinfo").write_text(told)
        runtime._of_processor.cache_clear()
        try:
            assert has_bf16(CPU) == there
            if not there:
                with pytest.raises(PrecisionMissing, match="bf16"):
                    Memory.create(wanted)
        finally:
            runtime._of_processor.cache_clear()


def test_other_machines_may_differ_by_more() -> None:
    certified, here = (logit_bytes(torch.tensor([10.0, value])) for value in (1.0, 1.1))
    assert disagreement(certified, here) is not None
    assert disagreement(certified, here, "bf16") is None
    assert disagreement(certified, logit_bytes(torch.tensor([10.0, 1.5])), "bf16") is not None
