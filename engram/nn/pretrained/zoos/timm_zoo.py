"""Networks of timm, an extra: families that are offered, their levels, classifiers and preprocessing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn

from engram.config.backbones import Argument, Preprocessing
from engram.errors import ArchitectureMissing
from engram.nn.pretrained.architecture import DYNAMIC, IMG_SIZE, NUM_CLASSES, Architecture, Place
from engram.nn.pretrained.zoos.torchvision_import import import_torchvision

PREFIX = "timm/"

_CONVOLUTIONS = ("convnext", "densenet", "efficientnet", "mobilenetv3", "regnet", "resnet", "resnetv2", "vgg")
_TOKENS = ("deit", "eva", "vision_transformer")
_WINDOWS = ("swin_transformer",)
"""timm's modules by what their networks put out: maps, tokens, or maps with the channels last."""


def _timm() -> Any:
    if importlib.util.find_spec("timm") is None:
        raise ArchitectureMissing("timm is not installed here: pip install 'engram-vision[timm]'")
    return _imported()


@cache
def _imported() -> Any:
    import_torchvision()
    timm = importlib.import_module("timm")
    # As it is where the environment says nothing: answers are not to depend on a variable that a replica may lack.
    timm.layers.set_fused_attn(True)
    return timm


@cache
def timm_names() -> tuple[str, ...]:
    """The names that are offered, without the tags of timm's own weights, sorted."""
    timm = _timm()
    found = {name for family in (*_CONVOLUTIONS, *_TOKENS, *_WINDOWS) for name in timm.list_models(module=family)}
    # With two classifiers, whose answers are averaged, there are no features that one classifier reads.
    return tuple(f"{PREFIX}{name}" for name in sorted(found) if "distilled" not in name)


class TimmArchitecture(Architecture):
    """A network of timm: `timm/NAME`, or `timm/NAME.TAG`, where the tag only chooses the preprocessing."""

    def __init__(self, name: str) -> None:
        timm = _timm()
        self.name = name
        self._own, _, self._tag = name.removeprefix(PREFIX).partition(".")
        self.library = f"timm {timm.__version__}"
        self._layout = next(
            layout
            for layout, families in (("maps", _CONVOLUTIONS), ("tokens", _TOKENS), ("channels_last", _WINDOWS))
            if any(self._own in timm.list_models(module=family) for family in families)
        )
        if self._layout == "tokens":
            self.arguments = frozenset({NUM_CLASSES, IMG_SIZE, DYNAMIC})

    def build(self, arguments: Mapping[str, Argument]) -> nn.Module:
        """The network, as timm makes it."""
        module: nn.Module = _timm().create_model(self._own, pretrained=False, **arguments)
        return module

    def places(self, module: nn.Module) -> tuple[Place, ...]:
        """By timm's own table of features; of transformers, four blocks at equal distances."""
        known: Any = module
        names = [str(entry["module"]) for entry in known.feature_info]
        if self._layout == "maps":
            return tuple(Place(name) for name in names)
        if self._layout == "channels_last":
            return tuple(Place(name, "channels_last") for name in names)
        ends = [(quarter + 1) * len(names) // 4 - 1 for quarter in range(4)]
        return tuple(Place(names[at], "tokens", int(known.num_prefix_tokens)) for at in ends)

    def classifier(self, module: nn.Module) -> str:
        """As timm names it."""
        known: Any = module
        return str(known.pretrained_cfg["classifier"])

    def preprocessing(self, arguments: Mapping[str, Argument]) -> Preprocessing:
        """That of the weights of the tag, or of timm's default ones; a size that is built for goes before it."""
        models = importlib.import_module("timm.models")
        config = models.get_pretrained_cfg(f"{self._own}.{self._tag}" if self._tag else self._own)
        side = int(config.input_size[-1])
        return Preprocessing(
            size=int(arguments.get(IMG_SIZE, side)),
            interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
            crop=float(config.crop_pct),
            mean=tuple(config.mean),
            std=tuple(config.std),
        )

    def for_size(self, arguments: Mapping[str, Argument], size: int) -> dict[str, Argument]:
        """With the positions of transformers interpolated, which timm does in every forward."""
        built_for = arguments.get(IMG_SIZE, self.preprocessing({}).size)
        if self._layout == "tokens" and built_for != size:
            return {**arguments, DYNAMIC: True}
        return {name: value for name, value in arguments.items() if name != DYNAMIC}


def tags(name: str) -> tuple[str, ...]:
    """The tags of timm's own weights for `timm/NAME`."""
    _timm()
    models = importlib.import_module("timm.models")
    own = name.removeprefix(PREFIX)
    return tuple(one.partition(".")[2] for one in models.list_pretrained(f"{own}.*"))
