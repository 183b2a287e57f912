"""Backbones as layouts: `mlp`, `cnn`, `resnet18`, `resnet50`, `vgg11`, `vgg16`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from engram.config.definition import Definition
from engram.errors import InvalidDefinition
from engram.nn.layout import IMAGE, Layout, LayoutBuilder

SMALL_IMAGE = 64
"""Residual networks keep the resolution of images under this size in their stem."""


def _mlp(draft: LayoutBuilder, definition: Definition, width: Callable[[int], int]) -> None:
    source = IMAGE
    for number in range(1, (definition.depth or 2) + 1):
        source = draft.dense(f"dense{number}", source, draft.layer(f"dense{number}", width(256)))


def _cnn(draft: LayoutBuilder, definition: Definition, width: Callable[[int], int]) -> None:
    source = IMAGE
    stages = definition.depth or 3
    shortest = min(definition.input.height, definition.input.width)
    if shortest >> stages < 1:
        raise InvalidDefinition(f"a cnn of depth {stages} halves {shortest} pixels away; take a smaller depth")
    for stage in range(1, stages + 1):
        layer = draft.layer(f"conv{stage}", width(min(64, 16 * 2 ** (stage - 1))))
        source = draft.conv(f"conv{stage}", source, layer, kernel=3)
        source = draft.max_pool(f"pool{stage}", source, kernel=2, stride=2)
    source = draft.flatten("flatten", source)
    draft.dense("dense", source, draft.layer("dense", width(128)))


def _stem(draft: LayoutBuilder, definition: Definition, layer: str) -> str:
    if min(definition.input.height, definition.input.width) < SMALL_IMAGE:
        return draft.conv("stem", IMAGE, layer, kernel=3)
    source = draft.conv("stem", IMAGE, layer, kernel=7, stride=2)
    return draft.max_pool("stem_pool", source, kernel=3, stride=2, padding=1)


def _resnet18(draft: LayoutBuilder, definition: Definition, width: Callable[[int], int]) -> None:
    stream = draft.layer("stage1", width(64))
    source = _stem(draft, definition, stream)
    for stage, (units, repeats) in enumerate(((64, 2), (128, 2), (256, 2), (512, 2)), start=1):
        stream = draft.layer(f"stage{stage}", width(units))
        for repeat in range(1, repeats + 1):
            name, stride = f"stage{stage}_{repeat}", 2 if stage > 1 and repeat == 1 else 1
            inner = draft.layer(f"{name}_inner", width(units))
            branch = draft.conv(f"{name}_conv1", source, inner, kernel=3, stride=stride)
            branch = draft.conv(f"{name}_conv2", branch, stream, kernel=3, rectify=False)
            trunk = source
            if stride > 1:
                trunk = draft.conv(f"{name}_project", source, stream, kernel=1, stride=stride, rectify=False)
            source = draft.add(f"{name}_sum", trunk, branch)
    draft.global_average("average", source)


def _resnet50(draft: LayoutBuilder, definition: Definition, width: Callable[[int], int]) -> None:
    source = _stem(draft, definition, draft.layer("stem", width(64)))
    for stage, (units, repeats) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        stream = draft.layer(f"stage{stage}", width(4 * units))
        for repeat in range(1, repeats + 1):
            name, stride = f"stage{stage}_{repeat}", 2 if stage > 1 and repeat == 1 else 1
            narrow = draft.layer(f"{name}_narrow", width(units))
            inner = draft.layer(f"{name}_inner", width(units))
            branch = draft.conv(f"{name}_conv1", source, narrow, kernel=1)
            branch = draft.conv(f"{name}_conv2", branch, inner, kernel=3, stride=stride)
            branch = draft.conv(f"{name}_conv3", branch, stream, kernel=1, rectify=False)
            trunk = source
            if repeat == 1:
                trunk = draft.conv(f"{name}_project", source, stream, kernel=1, stride=stride, rectify=False)
            source = draft.add(f"{name}_sum", trunk, branch)
    draft.global_average("average", source)


def _adapter(draft: LayoutBuilder, definition: Definition, width: Callable[[int], int]) -> None:
    # Wider windows, and a second convolution, were worth nothing on maps of EfficientNet-Lite0.
    source = draft.conv("conv", IMAGE, draft.layer("conv", width(128)), kernel=1)
    draft.global_average("average", source)


def _vgg(draft: LayoutBuilder, definition: Definition, width: Callable[[int], int], repeats: Sequence[int]) -> None:
    """Simonyan and Zisserman 2014, with batch normalisation; every stage halves.

    Their three dense layers are for maps of 7 x 7 that images of 224 pixels leave. As is usual for images of 32
    pixels, whose maps have one place left, there is one of 512; maps of larger images are averaged before it.
    """
    shortest = min(definition.input.height, definition.input.width)
    if shortest >> len(repeats) < 1:
        raise InvalidDefinition(
            f"{definition.backbone} halves {shortest} pixels away; it takes images of {2 ** len(repeats)} or more"
        )
    source = IMAGE
    for stage, (units, times) in enumerate(zip((64, 128, 256, 512, 512), repeats, strict=True), start=1):
        for repeat in range(1, times + 1):
            name = f"conv{stage}_{repeat}"
            source = draft.conv(name, source, draft.layer(name, width(units)), kernel=3)
        source = draft.max_pool(f"pool{stage}", source, kernel=2, stride=2)
    source = draft.global_average("average", source)
    draft.dense("dense", source, draft.layer("dense", width(512)))


def _none(draft: LayoutBuilder, definition: Definition, width: Callable[[int], int]) -> None:
    """No node at all: a task has a linear head over the commons, and nothing else."""


_BACKBONES: dict[str, Callable[[LayoutBuilder, Definition, Callable[[int], int]], None]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet18": _resnet18,
    "resnet50": _resnet50,
    "vgg11": partial(_vgg, repeats=(1, 1, 2, 2, 2)),
    "vgg16": partial(_vgg, repeats=(2, 2, 3, 3, 3)),
    "adapter": _adapter,
    "none": _none,
}


def layout_of(definition: Definition, maps: tuple[int, int] | None = None) -> Layout:
    """The layout of a model.

    Parameters
    ----------
    maps
        Channels and side of the maps that engrams read in place of images, where they do.

    Raises
    ------
    InvalidDefinition
        when the depth does not fit the backbone or the image.
    """
    if definition.depth is not None and definition.backbone.startswith(("resnet", "vgg")):
        raise InvalidDefinition(f"{definition.backbone} has its depth by name; leave depth out")

    def width(units: int) -> int:
        return max(1, math.ceil(units * definition.width))

    shape = definition.input
    if maps is None:
        draft = LayoutBuilder(shape.channels, shape.height, shape.width)
    else:
        draft = LayoutBuilder(maps[0], maps[1], maps[1])
    _BACKBONES[definition.backbone](draft, definition, width)
    return draft.done()
