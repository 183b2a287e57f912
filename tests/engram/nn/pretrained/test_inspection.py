"""Tests of what is found in files that users bring: what fits, and everything that does not."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from engram.config.backbones import BackboneDescription
from engram.errors import (
    BackboneTooLarge,
    DamagedWeights,
    InvalidBackbone,
    MissingTensors,
    NotFinite,
    PickleRefused,
    SurplusTensors,
    UnsuitedSize,
    WrongShapes,
)
from engram.nn.pretrained import measurement, weights
from engram.nn.pretrained.backbone import Backbone
from engram.nn.pretrained.inspection import at_size, inspect
from tests.engram.nn.pretrained.drawn import Drawn

EFFICIENTNET = "timm/test_efficientnet"
SMALL = {"size": 64}


def changed(drawn: Drawn, change: Callable[[dict[str, Tensor]], object]) -> bytes:
    """The file with other tensors."""
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load(drawn.file).items()}
    change(tensors)
    return safetensors.torch.save(tensors)


def test_what_fits_is_described(efficientnet: Drawn) -> None:
    found = efficientnet.description
    assert found.weights == hashlib.sha256(efficientnet.file).hexdigest()
    assert found.bytes == len(efficientnet.file)
    assert found.parameters == sum(one.numel() for one in efficientnet.module.parameters())
    assert found.library.startswith("timm ")
    assert (found.features, found.outputs, found.arguments) == (256, 5, {"num_classes": 5})
    assert [level.reduction for level in found.levels] == [2, 4, 8, 16, 32]
    assert [level.channels for level in found.levels] == [16, 24, 32, 48, 64]
    assert found.preprocessing.size == 64
    assert BackboneDescription.model_validate_json(found.model_dump_json()) == found


def test_operations_are_those_of_the_layers(efficientnet: Drawn) -> None:
    """Counted again by hooks on a real forward."""
    count = 0

    def add(module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal count
        if isinstance(module, torch.nn.Conv2d):
            count += output.numel() * module.weight[0].numel()
        elif isinstance(module, torch.nn.Linear):
            count += output.numel() * module.in_features

    handles = [module.register_forward_hook(add) for module in efficientnet.module.modules()]
    efficientnet.module(torch.zeros(1, 3, 64, 64))
    for handle in handles:
        handle.remove()
    assert efficientnet.description.operations == count


def test_the_number_of_classes_is_that_of_the_file(efficientnet: Drawn) -> None:
    assert inspect(efficientnet.file, EFFICIENTNET, config=SMALL) == efficientnet.description


def test_a_file_may_be_a_path_and_without_batch_counters(efficientnet: Drawn, tmp_path: Path) -> None:
    def without(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("num_batches_tracked")]:
            del tensors[name]

    path = tmp_path / "weights.safetensors"
    path.write_bytes(changed(efficientnet, without))
    backbone = Backbone.open(path, EFFICIENTNET, config=SMALL, classes="abcde", licence="CC0-1.0")
    assert (backbone.description.classes, backbone.description.licence) == (tuple("abcde"), "CC0-1.0")
    pixels = torch.full((1, 3, 64, 64), 9, dtype=torch.uint8)
    logits = backbone.network().look(pixels).logits
    assert logits is not None
    assert torch.equal(logits, efficientnet.plain_logits(pixels))


def test_half_floats_become_floats_and_the_file_names_its_licence(efficientnet: Drawn) -> None:
    halves = {
        name: one.half() if one.is_floating_point() else one for name, one in efficientnet.module.state_dict().items()
    }
    file = safetensors.torch.save(halves, {"license": "MIT"})
    found = inspect(file, EFFICIENTNET, config=SMALL)
    assert found.licence == "MIT"
    assert found.parameters == efficientnet.description.parameters


def test_without_a_classifier_there_are_no_outputs(efficientnet: Drawn) -> None:
    file = changed(efficientnet, lambda tensors: [tensors.pop(f"classifier.{part}") for part in ("weight", "bias")])
    found = inspect(file, EFFICIENTNET, config=SMALL, arguments={"num_classes": 0})
    assert (found.outputs, found.features) == (0, 256)
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert Backbone(found, lambda: file).network().look(pixels).logits is None


def first_weight(tensors: dict[str, Tensor]) -> str:
    return next(name for name in sorted(tensors) if name.endswith("conv_pw.weight"))


TENSORS: list[tuple[type[InvalidBackbone], str, Callable[[dict[str, Tensor]], object]]] = [
    (MissingTensors, "conv_stem.weight", lambda tensors: tensors.pop("conv_stem.weight")),
    (SurplusTensors, "extra", lambda tensors: tensors.update(extra=torch.zeros(1))),
    (WrongShapes, r"\[8, 3, 1, 1\]", lambda tensors: tensors.update({"conv_stem.weight": torch.zeros(8, 3, 1, 1)})),
    (WrongShapes, "I64", lambda tensors: tensors.update({"bn1.bias": tensors["bn1.bias"].long()})),
    (NotFinite, "bn1.bias", lambda tensors: tensors["bn1.bias"].fill_(float("nan"))),
    (NotFinite, "image of one colour", lambda tensors: tensors["bn1.running_var"].fill_(-1)),
    (
        MissingTensors,
        "others instead: module.",
        lambda tensors: [tensors.update({f"module.{name}": tensors.pop(name)}) for name in list(tensors)],
    ),
]


@pytest.mark.parametrize(("error", "text", "change"), TENSORS)
def test_tensors_that_do_not_fit_are_refused(
    efficientnet: Drawn, error: type[Exception], text: str, change: Callable[[dict[str, Tensor]], object]
) -> None:
    with pytest.raises(error, match=text):
        inspect(changed(efficientnet, change), EFFICIENTNET, config=SMALL)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return file.getvalue()


def headed(fields: dict[str, Any], body: int = 0) -> bytes:
    text = json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text + bytes(body)


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (zipped(), PickleRefused),
        (b"\x80\x02}q\x00.", PickleRefused),
        (bytes(257) + b"ustar" + bytes(200), PickleRefused),
        (b"", DamagedWeights),
        (b"GIF89a", DamagedWeights),
        ((2**40).to_bytes(8, "little") + b"{" + bytes(100), DamagedWeights),
        ((9).to_bytes(8, "little") + b"{" + bytes(100), DamagedWeights),
        (headed({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), DamagedWeights),
        (headed({"a": {"dtype": "F32", "shape": [10**4000, 10**4000], "data_offsets": [0, 4]}}), DamagedWeights),
        (headed({"a": {"dtype": "F32", "shape": [2**62] * 5000, "data_offsets": [0, 4]}}), DamagedWeights),
        (headed({"a": {"dtype": "F32", "shape": [2**62] * 64, "data_offsets": [0, 4]}}), BackboneTooLarge),
        (headed({"a": [1]}), DamagedWeights),
        (headed({"a": {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 4]}}), BackboneTooLarge),
        (
            headed({f"t{at}": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for at in range(10_001)}),
            BackboneTooLarge,
        ),
        ((5 * 2**20).to_bytes(8, "little") + b"{" + bytes(6 * 2**20), BackboneTooLarge),
    ],
)
def test_other_files_are_refused_by_their_header(file: bytes, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        weights.read_header(file)
    path = tmp_path / "file"
    path.write_bytes(file)
    with pytest.raises(error):
        inspect(path, EFFICIENTNET)


def test_a_file_that_was_cut_off_is_damaged(efficientnet: Drawn) -> None:
    with pytest.raises(DamagedWeights, match="cannot be read"):
        inspect(efficientnet.file[:-4], EFFICIENTNET, config=SMALL)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"arguments": {"pretrained": True}}, InvalidBackbone, "takes no argument 'pretrained'"),
        ({"arguments": {"checkpoint_path": "/etc/passwd"}}, InvalidBackbone, "takes no argument"),
        ({"arguments": {"img_size": 64}}, InvalidBackbone, "takes no argument 'img_size'"),
        ({"arguments": {"num_classes": "5"}}, InvalidBackbone, "cannot be '5'"),
        ({"arguments": {"num_classes": True}}, InvalidBackbone, "cannot be True"),
        ({"arguments": {"num_classes": 10**9}}, InvalidBackbone, "cannot be"),
        ({"classes": ["a", "b"]}, InvalidBackbone, "5 outputs, but 2"),
        ({"classes": ["a", "b", "c", "d", "a"]}, InvalidBackbone, "twice"),
        ({"config": {"size": 0}}, InvalidBackbone, "size"),
        ({"config": {"std": [1, 1, 0]}}, InvalidBackbone, "std"),
        ({"config": {"colour": "red"}}, InvalidBackbone, "colour"),
        ({"licence": "x" * 201}, InvalidBackbone, "200 characters"),
    ],
)
def test_what_is_said_beside_the_file_must_fit_it(
    efficientnet: Drawn, given: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        inspect(efficientnet.file, EFFICIENTNET, **{"config": SMALL, **given})


def test_a_size_that_does_not_divide_is_unsuited(vit: Drawn) -> None:
    with pytest.raises(UnsuitedSize, match="72 x 72"):
        inspect(vit.file, "timm/test_vit", arguments={"img_size": 64}, config={"size": 72})


def test_what_costs_too_much_is_refused(efficientnet: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "MOST_OPERATIONS", efficientnet.description.operations - 1)
    with pytest.raises(BackboneTooLarge, match="multiply-adds"):
        inspect(efficientnet.file, EFFICIENTNET, config=SMALL)
    monkeypatch.setattr(measurement, "MOST_PARAMETERS", 1000)
    with pytest.raises(BackboneTooLarge, match="parameters"):
        inspect(efficientnet.file, EFFICIENTNET, config=SMALL)


def test_another_size_of_the_same_weights(efficientnet: Drawn, vit: Drawn) -> None:
    assert at_size(efficientnet.description, 64) == efficientnet.description
    larger = at_size(efficientnet.description, 96)
    assert larger == inspect(efficientnet.file, EFFICIENTNET, config={"size": 96})
    assert larger.operations > efficientnet.description.operations
    moved = at_size(vit.description, 96)
    assert moved.arguments == {"num_classes": 5, "img_size": 64, "dynamic_img_size": True}
    assert moved == inspect(vit.file, "timm/test_vit", arguments={"img_size": 64}, config={"size": 96})
    assert at_size(moved, 64) == vit.description
    with pytest.raises(UnsuitedSize):
        at_size(vit.description, 72)
    with pytest.raises(InvalidBackbone):
        at_size(vit.description, 5000)
