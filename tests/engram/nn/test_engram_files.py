"""Tests of stored engrams that say what they read: the same ones come back, damaged ones are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.nn.network import Engram, Network
from engram.nn.reads import whole
from engram.nn.serialization import dump_engram, load_engram, load_engrams
from testing.data.patterns import learned
from tests.engram.nn.reading import random_engram, random_network


@pytest.mark.parametrize("backbone", ["mlp", "cnn", "resnet18"])
def test_an_engram_comes_back_with_what_it_reads(backbone: str) -> None:
    network = random_network(backbone, owners=4, seed=1)
    stored = [dump_engram(engram) for engram in network.stack]
    stack = load_engrams(network.layout, stored)
    assert [dump_engram(engram) for engram in stack] == stored
    again = Network(network.layout, stack)
    images = torch.rand(3, 1, *network.layout.image_size)
    for engram in network.stack:
        assert again.closure(engram.task) == network.closure(engram.task)
        assert torch.equal(again.answer(engram.task, images)[1], network.answer(engram.task, images)[1])


def test_a_few_engrams_are_enough_if_they_read_no_other() -> None:
    layout = random_network("cnn").layout
    network, units = Network(layout), layout.widths
    for task, owners in (("first", ()), ("second", ()), ("third", ("first",)), ("fourth", ("third",))):
        reads = [whole(engram.task, engram.units) for engram in network.stack if engram.task in owners]
        network = network.appended(random_engram(layout, task, reads, units))
    stored = {engram.task: dump_engram(engram) for engram in network.stack}
    assert network.closure("fourth").owners == ("first", "third", "fourth")
    stack = load_engrams(layout, [stored[name] for name in ("first", "third", "fourth")])
    images = torch.rand(2, 1, *layout.image_size)
    part = Network(layout, stack, network.owned)
    assert torch.equal(part.answer("fourth", images)[1], network.answer("fourth", images)[1])
    with pytest.raises(DamagedSnapshot, match="has not"):
        load_engrams(layout, [stored["first"], stored["fourth"]])


def test_the_file_of_an_engram_that_reads_everything_says_nothing_of_reads() -> None:
    layout = random_network("mlp").layout
    engram = Engram(layout, "task", ("a", "b"), dict.fromkeys(layout.layers, 0), layout.widths).freeze()
    about, _ = unpack("engram", dump_engram(engram))
    assert set(about) == {"task", "classes", "earlier", "units"}
    assert load_engram(layout, dump_engram(engram)).reads is None
    nothing = Engram.reading(layout, "task", ("a", "b"), (), layout.widths).freeze()
    assert load_engram(layout, dump_engram(nothing)).reads == ()


@pytest.mark.parametrize(
    "reads",
    [
        [{"owner": "task 0", "units": {"dense1": [1, 0]}}],
        [{"owner": "task 0", "units": {"dense1": [0, 0]}}],
        [{"owner": "task 0", "units": {"dense1": [-1, 0]}}],
        [{"owner": "task 0", "units": {"dense1": [0, "1"]}}],
        [{"owner": "task 0", "units": {"dense1": [0, True]}}],
        [{"owner": "task 0", "units": {"dense1": [0]}}],
        [{"owner": "task 0", "units": {"nothing": [0, 1]}}],
        [{"owner": "task 0", "units": {"dense1": [0]}}, {"owner": "task 0", "units": {"dense1": [1]}}],
        [{"owner": "task 0", "units": {"dense1": [0, 10**6]}}],
        [{"owner": "nobody", "units": {"dense1": [0, 1]}}],
        [{"owner": 3, "units": {"dense1": [0, 1]}}],
        [{"owner": "task 0", "units": {}}],
        [{"units": {"dense1": [0, 1]}}],
        ["task 0"],
        None,
        {},
    ],
)
def test_reads_that_cannot_be_are_refused(reads: object) -> None:
    network = random_network("mlp", owners=1)
    layout = network.layout
    earlier = {layer: 2 if layer == "dense1" else 0 for layer in layout.layers}
    whole = Engram(layout, "reader", ("a", "b"), earlier, layout.widths)
    about: dict[str, object] = {"task": "reader", "classes": ["a", "b"], "earlier": earlier, "units": whole.units}
    first = dump_engram(network.stack[0])

    def stored(given: object) -> bytes:
        return pack("engram", {**about, "reads": given}, whole.state_dict())

    load_engrams(layout, [first, stored([{"owner": "task 0", "units": {"dense1": [0, 1]}}])])
    with pytest.raises(DamagedSnapshot):
        load_engrams(layout, [first, stored(reads)])


READS = (
    "from engram import Memory; memory = Memory.load(sys.argv[1]);"
    "shape = memory.definition.input;"
    "memory.predict(torch.zeros(1, shape.channels, shape.height, shape.width, dtype=torch.uint8));"
)
LEARNS = "from testing.data.patterns import learned; learned('cnn', tasks=2);"


@pytest.mark.parametrize("does", [READS, LEARNS], ids=["reading and answering", "learning"])
def test_no_compiler_is_imported(does: str, tmp_path: Path) -> None:
    """Which takes a second and tens of megabytes in every process."""
    learned("cnn", tasks=1).save(tmp_path)
    shown = "print(*{'torch._dynamo', 'torch._inductor', 'sympy', 'torch.onnx', 'celery'} & sys.modules.keys())"
    alone = "import sys, torch; torch.set_num_threads(1);"
    command = [sys.executable, "-c", alone + does + shown, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
