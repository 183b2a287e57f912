"""Tests of networks of blocks beside a slow reference, of cut-out units, and of backbones."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from engram.certificate import probe_batch
from engram.config.definition import Definition, InputShape
from engram.errors import ExamplesError, InvalidDefinition
from engram.nn.backbones import layout_of
from engram.nn.blocks import MaxPoolBlock
from engram.nn.layout import Node
from engram.nn.network import Engram, Network, pixels
from testing.data.patterns import bars, definition, learned, network_of
from tests.engram.nn.reference import reference_logits

BACKBONES = ("mlp", "cnn", "resnet18", "resnet50", "vgg11")


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        *((backbone, 3) for backbone in BACKBONES if backbone != "resnet50"),
        *((backbone, 1) for backbone in ("mlp", "cnn", "resnet50")),  # in which grey images take less time
        *(pytest.param(backbone, 1, marks=pytest.mark.slow) for backbone in ("resnet18", "vgg11")),
        pytest.param("resnet50", 3, marks=pytest.mark.slow),
    ],
)
def test_blocks_compute_what_the_plain_reference_computes(backbone: str, channels: int) -> None:
    network = _random_network(backbone, channels, owners=3, width=0.2 if backbone in ("mlp", "cnn") else 0.03)
    images = pixels(probe_batch(definition(backbone, channels).input)[[3, 20]])
    single = network(images)
    double = copy.deepcopy(network).double()(images.double())
    for row, image in enumerate(images):
        expected = reference_logits(network, image.numpy().astype(np.float64))
        for owner, logits in enumerate(expected):
            np.testing.assert_allclose(double[owner][1][row].numpy(), logits, rtol=1e-9, atol=1e-9)
            scale = max(1.0, float(np.abs(logits).max()))
            rounding = 1e-5 if backbone == "resnet50" else 1e-6  # float32 through fifty random layers
            np.testing.assert_allclose(single[owner][1][row].numpy() / scale, logits / scale, rtol=0, atol=rounding)


@torch.no_grad()
def _random_network(backbone: str, channels: int, owners: int, width: float = 0.1) -> Network:
    """Owners of different widths with random weights, normalisation statistics included."""
    torch.manual_seed(5)
    layout = layout_of(definition(backbone, channels, width=width))
    network = Network(layout)
    for owner in range(owners):
        units = {layer: max(1, width - owner) for layer, width in layout.widths.items()}
        engram = Engram(layout, f"task {owner}", ("a", "b", "c")[: 2 + owner % 2], network.owned, units)
        for name, value in engram.state_dict().items():
            if "running_mean" in name or "norm.bias" in name:
                value.normal_(0, 0.2)
            elif "running_var" in name or "norm.weight" in name:
                value.uniform_(0.5, 1.5)
        network = network.appended(engram.freeze())
    return network


@pytest.mark.parametrize("backbone", BACKBONES)
def test_cutting_units_is_silencing_them(backbone: str) -> None:
    """A narrowed engram computes what the wide one does with the dropped units at zero."""
    network = _random_network(backbone, 1, owners=2)
    engram = network.stack[-1]
    below = Network(network.layout, network.stack[:-1])
    keep = {layer: torch.arange(0, units, 2) for layer, units in engram.units.items()}
    images = pixels(probe_batch(definition(backbone).input)[:4])
    with torch.no_grad():
        narrow = engram.narrowed(keep)
        silenced = copy.deepcopy(engram)
        for node in engram.layout.nodes:
            mask = torch.zeros(engram.units[node.layer])
            mask[keep[node.layer]] = 1
            if node.per_unit > 1:
                mask = mask.repeat_interleave(node.per_unit)
            silenced.block(node).register_forward_hook(
                lambda module, given, output, mask=mask: output * mask.reshape(1, -1, *[1] * (output.ndim - 2))
            )
        joined = below.prefix(images)
        expected = silenced.logits(silenced(images, joined))
        actual = narrow.logits(narrow(images, joined))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert narrow.units == {layer: len(kept) for layer, kept in keep.items()}


def test_the_served_network_is_as_narrow_as_what_was_kept() -> None:
    memory = learned("cnn", tasks=2)
    for engram in network_of(memory).stack:
        for node in engram.layout.nodes:
            if node.operation == "conv":
                weight = engram.state_dict()[f"blocks.{node.name}.conv.weight"]
                assert weight.shape[0] == engram.units[node.layer]
    assert sum(memory.tasks[1].units.values()) < sum(network_of(memory).layout.widths.values())


def test_small_images_keep_their_resolution_in_the_stem() -> None:
    def stem(side: int) -> tuple[int, int] | None:
        shape = InputShape(channels=3, height=side, width=side)
        return layout_of(Definition(backbone="resnet18", input=shape)).node("stem").size

    assert stem(32) == (32, 32)
    assert stem(224) == (112, 112)


@pytest.mark.parametrize(("backbone", "layers"), [("resnet18", 12), ("resnet50", 37)])
def test_layers_whose_outputs_are_added_share_their_units(backbone: str, layers: int) -> None:
    layout = layout_of(definition(backbone))
    for node in layout.nodes:
        if node.operation == "add":
            assert {layout.node(source).layer for source in node.sources} == {node.layer}
    assert len(layout.layers) == layers


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="depth by name"):
        layout_of(definition("resnet18", depth=3))
    with pytest.raises(InvalidDefinition, match="halves"):
        layout_of(definition("cnn", depth=5))
    with pytest.raises(InvalidDefinition, match="depth by name"):
        layout_of(definition("vgg16", depth=3))


def test_depth_and_width_are_choices() -> None:
    assert layout_of(definition("mlp", depth=3, width=0.5)).widths == {"dense1": 128, "dense2": 128, "dense3": 128}
    assert list(layout_of(definition("cnn", depth=2)).layers) == ["conv1", "conv2", "dense"]


def test_examples_of_the_wrong_size_are_refused_with_the_way_out() -> None:
    memory = learned("mlp", tasks=0)
    with pytest.raises(ExamplesError, match=r"engram\.data\.images\.decode"):
        memory.learn("task", bars(0, channels=3))


@pytest.mark.parametrize("backbone", ["cnn", "resnet50", "vgg11"])
def test_rectifying_after_the_maximum_trains_with_the_same_bytes(backbone: str) -> None:
    side = 64 if backbone == "resnet50" else 32  # a stem whose windows reach over the edge
    layout = layout_of(definition(backbone, input=InputShape(channels=1, height=side, width=side)))
    assert layout.pooled()
    images = pixels(bars(0, 4, side=side).images)
    images[:2] = 0.0  # maxima that several places share
    found, watched = [], dict[str, torch.Tensor]()
    for watch in (None, watched):  # whoever watches nodes wants them rectified
        torch.manual_seed(0)
        engram = Engram(layout, "task", ("a", "b"), dict.fromkeys(layout.layers, 0), dict(layout.widths), ())
        logits = engram.logits(engram(images, {}, watch))
        logits.square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        grown = [parameter.grad for parameter in engram.parameters() if parameter.grad is not None]
        found.append([logits, *grown, *engram.state_dict().values(), engram.eval().features(images, {})])
    assert all(float(watched[name].detach().min()) == 0 for name in layout.pooled())
    assert all(one.equal(other) for one, other in zip(*found, strict=True))
    assert len(found[0]) > len(layout.nodes)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maxima_lie_in_memory_as_the_maps_that_they_are_of(layout: torch.memory_format) -> None:
    node = Node("pool", "max_pool", ("conv",), "conv", size=None, kernel=2, stride=2)
    own = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=layout)
    found, expected = (one.requires_grad_(True) for one in (own.clone(), own.clone()))
    pooled, plain = MaxPoolBlock(node).rectified(found), torch.relu(torch.nn.functional.max_pool2d(expected, 2, 2))
    assert torch.equal(pooled, plain)
    assert pooled.is_contiguous(memory_format=layout)
    for one in (pooled, plain):
        one.square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert found.grad is not None
    assert expected.grad is not None
    assert torch.equal(found.grad, expected.grad)
    assert found.grad.is_contiguous(memory_format=layout)
