"""Tests of the registry: names, what may not be one, entry points, building on the meta device."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import safetensors.torch
import torch

from engram.errors import ArchitectureMissing, InvalidBackbone, UnknownArchitecture
from engram.nn.pretrained.architectures import architecture, architecture_names
from engram.nn.pretrained.inspection import inspect
from engram.nn.pretrained.measurement import measured
from engram.nn.pretrained.network import network
from engram.nn.pretrained.zoos import entry_points, timm_zoo
from tests.engram.nn.pretrained.drawn import OwnArchitecture, Tokens, filled


def test_names_are_those_of_both_libraries() -> None:
    names = architecture_names()
    assert {"torchvision/resnet18", "torchvision/vit_b_16", "timm/tf_efficientnet_lite0", "timm/convnext_tiny"} <= set(
        names
    )
    assert "torchvision/inception_v3" not in names
    assert not [name for name in names if "distilled" in name or "fasterrcnn" in name or "quantized" in name]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("torchvision/resnet17", "torchvision/resnet1"),
        ("timm/resnet18.no_such_tag", "timm/resnet18"),
        ("resnet18", "torchvision/resnet18"),
        ("timm/hf-hub:someone/model", "no architecture"),
        ("hf-hub:someone/model", "no architecture"),
        ("local-dir:/tmp/model", "no architecture"),
        ("timm/local-dir:/tmp/model", "no architecture"),
        ("timm/../resnet18", "no architecture"),
        ("keras/resnet18", "torchvision/resnet18"),
        ("", "no architecture"),
    ],
)
def test_other_names_are_refused(name: str, hint: str) -> None:
    with pytest.raises(UnknownArchitecture, match=hint):
        architecture(name)


def test_a_tag_chooses_the_preprocessing() -> None:
    plain, tagged = (architecture(name).preprocessing({}) for name in ("timm/resnet50", "timm/resnet50.tv_in1k"))
    assert (plain.interpolation, tagged.interpolation) == ("bicubic", "bilinear")


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("torchvision/resnet18", [64, 64, 128, 256, 512]),
        ("torchvision/mobilenet_v2", [16, 24, 32, 96, 320]),
        ("torchvision/mobilenet_v3_small", [16, 24, 48, 96]),
        ("torchvision/vgg11_bn", [64, 128, 256, 512, 512]),
        ("torchvision/regnet_x_400mf", [32, 32, 64, 160, 400]),
        ("torchvision/convnext_tiny", [96, 192, 384, 768]),
        ("torchvision/vit_b_16", [768] * 4),
        ("timm/swin_tiny_patch4_window7_224", [96, 192, 384, 768]),
        ("timm/vit_small_patch14_dinov2", [384] * 4),
        ("timm/vit_small_patch16_dinov3", [384] * 4),
    ],
)
def test_levels_grow_coarser(name: str, channels: list[int]) -> None:
    kind = architecture(name)
    found = measured(kind, kind.for_size({}, 224), 224)
    assert [level.channels for level in found.levels] == channels
    reductions = [level.reduction for level in found.levels]
    assert reductions == sorted(reductions)
    assert reductions[-1] in (14, 16, 32)


def test_without_timm_its_networks_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    timm_zoo.timm_names.cache_clear()
    with pytest.raises(ArchitectureMissing, match=r"engram-vision\[timm\]"):
        architecture("timm/resnet18")
    assert not [name for name in architecture_names() if name.startswith("timm/")]


def own(value: str) -> EntryPoint:
    return EntryPoint("own", value, entry_points.GROUP)


def offer(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    monkeypatch.setattr(
        entry_points,
        "entry_points",
        lambda group, name=None: [one for one in points if name in (None, one.name) and group == entry_points.GROUP],
    )


def test_an_entry_point_gives_an_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, own("tests.engram.nn.pretrained.drawn:OwnArchitecture"))
    assert isinstance(architecture("own"), OwnArchitecture)
    assert "own" in architecture_names()
    module = filled(Tokens(3))
    file = safetensors.torch.save(dict(module.state_dict()))
    found = inspect(file, "own")
    assert (found.architecture, found.outputs, found.features, found.preprocessing.size) == ("own", 3, 16, 32)
    assert found.library == "tests.engram.nn.pretrained.drawn"
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    logits = network(found, lambda: file).look(pixels).logits
    assert logits is not None
    with torch.no_grad():
        torch.testing.assert_close(logits, module((pixels / 255 - 0.5) / 0.25))


@pytest.mark.parametrize(
    ("points", "error"),
    [
        ([], ArchitectureMissing),
        (["no_such_module:thing"], ArchitectureMissing),
        (["tests.engram.nn.pretrained.drawn:Tokens.forward"], InvalidBackbone),
        (["json:dumps", "json:loads"], InvalidBackbone),
    ],
)
def test_entry_points_that_give_none(
    monkeypatch: pytest.MonkeyPatch, points: list[str], error: type[Exception]
) -> None:
    offer(monkeypatch, *(own(value) for value in points))
    with pytest.raises(error):
        architecture("own")


def test_nothing_is_imported_before_it_is_used() -> None:
    program = (
        "import sys; import engram.memory, engram.nn.pretrained.inspection, engram.nn.pretrained.network; "
        "assert not {'torchvision', 'timm', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
