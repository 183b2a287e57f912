"""Classification networks of torchvision: names, levels, classifiers and preprocessing."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import nn

from engram.config.backbones import Argument, Preprocessing
from engram.nn.pretrained.architecture import IMG_SIZE, NUM_CLASSES, Architecture, Place
from engram.nn.pretrained.modes import OwnDraws
from engram.nn.pretrained.zoos.torchvision_import import import_torchvision

PREFIX = "torchvision/"
_SIDE = 224
"""Pixels a side that torchvision builds vision transformers for."""


def _named(*names: str) -> Callable[[nn.Module], tuple[Place, ...]]:
    return lambda module: tuple(Place(name) for name in names)


def _before_each_halving(module: nn.Module) -> tuple[Place, ...]:
    """VGG: what each max pooling reads."""
    features = module.get_submodule("features")
    pools = [int(name) for name, one in features.named_children() if isinstance(one, nn.MaxPool2d)]
    return tuple(Place(f"features.{at - 1}") for at in pools)


def _inverted_residuals(module: nn.Module) -> tuple[Place, ...]:
    """MobileNets: the last block before each one that halves, and the last of all."""
    features = module.get_submodule("features")
    blocks = [(int(name), one) for name, one in features.named_children() if type(one).__name__ == "InvertedResidual"]
    ends = [at - 1 for at, one in blocks if _halves(one) and at > blocks[0][0]]
    return tuple(Place(f"features.{at}") for at in [*ends, blocks[-1][0]])


def _halves(block: nn.Module) -> bool:
    return any(isinstance(one, nn.Conv2d) and one.stride != (1, 1) for one in block.modules())


def _quarters(module: nn.Module) -> tuple[Place, ...]:
    """Vision transformers: four layers at equal distances, whose first token is the class's."""
    layers = [name for name, _ in module.get_submodule("encoder.layers").named_children()]
    ends = [(quarter + 1) * len(layers) // 4 - 1 for quarter in range(4)]
    return tuple(Place(f"encoder.layers.{layers[at]}", "tokens", 1) for at in ends)


def _swin(module: nn.Module) -> tuple[Place, ...]:
    return tuple(Place(f"features.{at}", "channels_last") for at in (1, 3, 5, 7))


class _Family(NamedTuple):
    places: Callable[[nn.Module], tuple[Place, ...]]
    classifier: str


_DENSE = ("features.relu0", *(f"features.denseblock{number}" for number in (1, 2, 3, 4)))
_FAMILIES: Mapping[str, _Family] = {
    r"(resnet|resnext|wide_resnet)\d+\w*": _Family(_named("relu", "layer1", "layer2", "layer3", "layer4"), "fc"),
    r"mobilenet_v2": _Family(_inverted_residuals, "classifier.1"),
    r"mobilenet_v3_(small|large)": _Family(_inverted_residuals, "classifier.3"),
    r"efficientnet_b\d": _Family(_named(*(f"features.{at}" for at in (1, 2, 3, 5, 7))), "classifier.1"),
    r"efficientnet_v2_s": _Family(_named(*(f"features.{at}" for at in (1, 2, 3, 5, 6))), "classifier.1"),
    r"efficientnet_v2_[ml]": _Family(_named(*(f"features.{at}" for at in (1, 2, 3, 5, 7))), "classifier.1"),
    r"convnext_\w+": _Family(_named(*(f"features.{at}" for at in (1, 3, 5, 7))), "classifier.2"),
    r"vgg\d\d(_bn)?": _Family(_before_each_halving, "classifier.6"),
    r"densenet\d+": _Family(_named(*_DENSE), "classifier"),
    r"regnet_[xy]_\w+": _Family(_named("stem", *(f"trunk_output.block{at}" for at in (1, 2, 3, 4))), "fc"),
    r"shufflenet_v2_\w+": _Family(_named("conv1", "stage2", "stage3", "stage4"), "fc"),
    r"vit_[blh]_\d\d": _Family(_quarters, "heads.head"),
    r"swin(_v2)?_[tsb]": _Family(_swin, "head"),
}
"""Levels and classifier by names; what is in none of them is not offered."""


def _models() -> Any:
    import_torchvision()
    return importlib.import_module("torchvision.models")


def _family(name: str) -> _Family | None:
    return next((family for pattern, family in _FAMILIES.items() if re.fullmatch(pattern, name)), None)


@cache
def torchvision_names() -> tuple[str, ...]:
    """The names that are offered, sorted."""
    models = _models()
    own = [name for name in models.list_models(module=models) if _family(name) is not None]
    return tuple(f"{PREFIX}{name}" for name in sorted(own))


class TorchvisionArchitecture(Architecture):
    """A classification network of torchvision."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._own = name.removeprefix(PREFIX)
        family = _family(self._own)
        assert family is not None, "the name is one of torchvision_names()"
        self._family = family
        self.library = f"torchvision {importlib.import_module('torchvision').__version__.partition('+')[0]}"
        if self._own.startswith("vit_"):
            self.arguments = frozenset({NUM_CLASSES, IMG_SIZE})

    def build(self, arguments: Mapping[str, Argument]) -> nn.Module:
        """The network; without a classifier, an identity stands where it was."""
        given: dict[str, Any] = dict(arguments)
        classes = given.pop(NUM_CLASSES, None)
        if IMG_SIZE in given:
            given["image_size"] = given.pop(IMG_SIZE)
        if classes:
            given[NUM_CLASSES] = classes
        module = self._built(given)
        if classes == 0:
            module.set_submodule(self._family.classifier, nn.Identity())
        return module

    def _built(self, given: Mapping[str, Any]) -> nn.Module:
        device = torch.get_default_device()
        if device.type == "meta" and self._own.startswith("regnet_"):
            # Its table of widths is computed with tensors, which have no values on that device.
            with torch.device("cpu"), OwnDraws():
                outline: nn.Module = _models().get_model(self._own, weights=None, **given)
            return outline.to(device)
        module: nn.Module = _models().get_model(self._own, weights=None, **given)
        return module

    def places(self, module: nn.Module) -> tuple[Place, ...]:
        """By the family's table."""
        return self._family.places(module)

    def classifier(self, module: nn.Module) -> str:
        """The last linear layer."""
        return self._family.classifier

    def preprocessing(self, arguments: Mapping[str, Argument]) -> Preprocessing:
        """That of torchvision's own newest weights, for vision transformers of those for images as large."""
        own = _models().get_model_weights(self._own)
        made = [one.transforms() for one in (own["DEFAULT"], *own)]
        side = int(arguments.get(IMG_SIZE, _SIDE))
        fitting = [one for one in made if one.crop_size[0] == side] if IMG_SIZE in self.arguments else []
        transforms = (fitting or made)[0]
        crop = int(transforms.crop_size[0])
        return Preprocessing(
            size=side if IMG_SIZE in self.arguments else crop,
            interpolation="bicubic" if transforms.interpolation.value == "bicubic" else "bilinear",
            crop=min(1.0, crop / int(transforms.resize_size[0])),
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
        )
