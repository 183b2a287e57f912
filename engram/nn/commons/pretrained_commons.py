"""Commons of a network that a user brought: features on a grid, and maps for adapters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self, cast

import torch
from torch import Tensor, nn

from engram.checkpointing.progress import Reporter
from engram.config.backbones import BackboneDescription
from engram.config.engines import BY_ONNX_RUNTIME, FIRST_ENGINE, EngineName
from engram.errors import NotFinite
from engram.nn.commons.base import Commons, Look
from engram.nn.commons.dead_leaves import dead_leaves
from engram.nn.commons.outputs import Outputs
from engram.nn.commons.readings import Readings
from engram.nn.commons.ridges import OF_NETWORKS, Ridges
from engram.nn.onnx_network import OnnxNetwork, onnx_network
from engram.nn.pretrained.network import CPU, PretrainedNetwork, Seen, network

STEP = 2.0**-7
"""What features are multiples of, in deviations over the reference images."""

LEVELS = 2047
"""The largest multiple of its step that a feature can be, either way: 12 bits with the sign."""

LEAST_SPREAD, LEAST_OF_MAPS = 1.0, 0.1
"""Share of the mean deviation of all features of a reading that each is taken to have at least: what hardly moves over
the reference images may move far over photographs. At a tenth, a tenth of what a classifier reads of them was cut off.
Channels of maps are of several levels, whose deviations differ; what is cut off there is seen in the others.
"""

REFERENCES = 128
"""Drawn images over which features are scaled, the same for every model: nobody's images are asked for."""

COMPARED = 4
"""Of these, images by which another engine is compared with PyTorch before its first answer."""

ZERO, UNIT = 96, 24
"""What a map's mean becomes, and what a deviation does, of 255: rectified maps reach far up and little down."""

Weights = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class _SeenImage:
    """What is told of one image."""

    features: Tensor
    """(1, F)."""
    maps: Tensor
    """(1, channels, side, side) uint8, where they are asked for."""
    logits: Tensor | None
    finite: Tensor
    """(): whether the network made numbers of it. A GPU is asked once for all images: each question waits for it."""


class PretrainedCommons(Commons):
    """A frozen network's levels, averaged over places; every feature is a whole multiple of `step`, in 12 bits.

    Each image is a forward of its own, so that its features are the same bytes whatever its neighbours. They are scaled
    by drawn images when the first task is learned, which is a property of the network alone.

    Parameters
    ----------
    weights
        Gives the safetensors file; called once a process for all models of the same network.
    adapters
        Whether engrams read the network's maps, not the pixels.
    engine
        What runs the network.
    """

    def __init__(
        self,
        description: BackboneDescription,
        readings: Readings,
        weights: Weights,
        *,
        adapters: bool,
        engine: EngineName = FIRST_ENGINE,
    ) -> None:
        super().__init__()
        self._engine = engine
        self.description, self.readings, self._adapters = description, readings, adapters
        self.features, self.step = readings.width, STEP
        self._weights = weights
        self._network: PretrainedNetwork | None = None
        self._place = CPU
        """Where the network is run, which is not where the features are put on their grid."""
        self._outputs: Outputs | None = None
        """On the processor what lies on another device; a batch is not to wait for a copy of the classifier."""
        for name, count in (("", self.features), ("map_", readings.channels)):
            self.register_buffer(f"{name}centres", torch.zeros(count))
            self.register_buffer(f"{name}scales", torch.zeros(count))

    @property
    def network(self) -> PretrainedNetwork:
        """The network, loaded when it is first needed; raises as `network` of `engram.nn.pretrained.network`."""
        if self._network is None:
            self._network = network(self.description, self._weights, self._place)
        return self._network

    @property
    def weights(self) -> Weights:
        """Gives the safetensors file."""
        return self._weights

    @property
    def device(self) -> torch.device:
        return cast(Tensor, self.centres).device

    @property
    def fixed(self) -> bool:
        return bool(cast(Tensor, self.scales).any())

    @property
    def needs_images(self) -> bool:
        return False

    @property
    def ridges(self) -> tuple[Ridges, ...]:
        return (OF_NETWORKS,)

    @property
    def maps(self) -> tuple[int, int] | None:
        return (self.readings.channels, self.readings.side) if self._adapters else None

    @torch.no_grad()
    def fitted(self, images: Tensor, reporter: Reporter | None = None) -> Self:
        if self.fixed:
            return self
        reporter = reporter or Reporter()
        other = copy.copy(self)
        other._buffers = dict(self._buffers)
        about = self.description
        # Two of the commons may read one network, each its own way.
        name = f"scales of {self.features} features of {about.weights[:16]} at {about.preprocessing.size}"
        found = reporter.journal.once(name, partial(self._scales, reporter))
        for key, value in zip(("centres", "scales", "map_centres", "map_scales"), found, strict=True):
            other._buffers[key] = value.to(self.device)
        return other

    def _scales(self, reporter: Reporter) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Centres and scales of features, and of the channels of maps, over the reference images."""
        raw, maps = [], []
        for image in torch.split(dead_leaves(3)[:REFERENCES], 1):
            reporter.check()
            seen = self._look(image)
            raw.append(self.readings.read(seen.levels, seen.features).double().cpu())
            maps.append(self.readings.maps(seen.levels).double().cpu())
        features, channels = torch.cat(raw), torch.cat(maps).permute(0, 2, 3, 1).flatten(0, 2)  # (N, F), (N * g * g, C)
        widths = [reading.width for reading in self.readings.features]
        both = _scaled(features, widths, LEAST_SPREAD), _scaled(channels, [channels.shape[1]], LEAST_OF_MAPS)
        return (*both[0], *both[1])

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.of_bytes((images * 255.0).round_().clamp_(0, 255).to(torch.uint8))

    @torch.no_grad()
    def of_bytes(self, images: Tensor) -> Tensor:
        if not len(images):
            return torch.zeros(0, self.features, device=self.device)
        seen = [self._seen(image, maps=False) for image in torch.split(images, 1)]
        _require_finite([one.finite for one in seen])
        return torch.cat([one.features for one in seen])

    @torch.no_grad()
    def mapped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if not len(images):
            return self.of_bytes(images), images.new_zeros(0, self.readings.channels, *2 * [self.readings.side])
        seen = [self._seen(image, maps=True) for image in torch.split(images, 1)]
        _require_finite([one.finite for one in seen])
        return torch.cat([one.features for one in seen]), torch.cat([one.maps for one in seen])

    @torch.no_grad()
    def look(self, images: Tensor) -> Look:
        seen = [self._seen(image, maps=self._adapters) for image in torch.split(images, 1)]
        _require_finite([one.finite for one in seen])
        shown = torch.cat([one.maps for one in seen]) if self._adapters else images
        logits = [one.logits for one in seen if one.logits is not None]
        told = torch.cat(logits).cpu() if logits else None
        return Look(shown.to(torch.float32) / 255.0, torch.cat([one.features for one in seen]).cpu(), told)

    def place(self, device: torch.device) -> None:
        self.to(device)
        # By its number, which `device` may lack: one place is to have one network.
        if self._engine not in BY_ONNX_RUNTIME and self.device != self._place:
            self._place, self._network = self.device, None
        self._outputs = None

    def placed(self, device: torch.device) -> Self:
        other = copy.copy(self)  # the way to the weights, which may be a connection, is the same one
        other._buffers = dict(self._buffers)
        other.place(device)
        return other

    def outputs(self) -> Outputs | None:
        if not self.description.outputs:
            return None
        if self._outputs is not None and self.device.type != "cpu":
            return self._outputs
        own, width = self.network.module.get_submodule(self.network.classifier), self.description.features
        if not isinstance(own, nn.Linear) or own.in_features != width or self.readings.features[0].kind != "classifier":
            return None
        scales = cast(Tensor, self.scales)[:width].detach().cpu()
        found = Outputs(0, 0, scales, own.weight.detach().cpu())
        self._outputs = found  # on the processor it is the network's own, which exports follow: it is asked for anew
        return found

    def require(self) -> None:
        if self._engine in BY_ONNX_RUNTIME:
            self._by_onnx()

    def _by_onnx(self) -> OnnxNetwork:
        """The network as ONNX Runtime has it; raises as `onnx_network`."""
        return onnx_network(self.network, lambda: dead_leaves(3)[:COMPARED])

    def _look(self, image: Tensor) -> Seen:
        """What the network sees in one image, by the engine."""
        return self._by_onnx().look(image) if self._engine in BY_ONNX_RUNTIME else self.network.look(image)

    def _seen(self, image: Tensor, *, maps: bool) -> _SeenImage:
        """What is told of one image (1, C, H, W) uint8."""
        seen = self._look(image.to(self._place))
        raw = self.readings.read(seen.levels, seen.features).to(self.device)
        finite = raw.isfinite().all()
        centres, scales = cast(Tensor, self.centres), cast(Tensor, self.scales)
        levels = ((raw - centres) * scales).mul_(1 / STEP).round_().clamp_(-LEVELS, LEVELS)
        features = levels.mul_(STEP)
        if not maps:
            return _SeenImage(features, raw, seen.logits, finite)
        centres, scales = (cast(Tensor, one)[:, None, None] for one in (self.map_centres, self.map_scales))
        drawn = ((self.readings.maps(seen.levels).to(self.device) - centres) * scales).mul_(UNIT).add_(ZERO)
        return _SeenImage(features, drawn.round_().clamp_(0, 255).to(torch.uint8), seen.logits, finite)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_network": None, "_outputs": None}  # the network is one that all copies share


def _require_finite(told: Sequence[Tensor]) -> None:
    """Raise NotFinite where a network made no numbers of some image."""
    if not bool(torch.stack(list(told)).all()):
        raise NotFinite("what the network makes of an image is infinite or no number")


def _scaled(values: Tensor, widths: list[int], least: float) -> tuple[Tensor, Tensor]:
    """Centres and inverse deviations (F,) float32 of values (N, F), held up by a share of each reading's mean one."""
    spread = values.std(0)
    floors = [least * part.mean().clamp_min(1e-12).expand(len(part)) for part in torch.split(spread, widths)]
    held = torch.maximum(spread, torch.cat(floors))
    # A power of two loses no digit of what it multiplies.
    exponents = torch.tensor([math.frexp(value)[1] for value in held.tolist()])
    return values.mean(0).float(), torch.ldexp(torch.ones(len(held)), -exponents).float()
