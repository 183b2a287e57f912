"""Explainer of networks that users bring: relevance or gradients of pixels, on private copies."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self

import torch
from torch import Tensor, nn

from engram.config.backbones import Level, Preprocessing
from engram.errors import UnknownComposite
from engram.explain.pretrained.composites import composite_for
from engram.explain.pretrained.flow import Flow, flow_of
from engram.explain.pretrained.gradients import PixelLogit, Slope, averaged_around, even_image, integrated
from engram.explain.pretrained.offer import PATHS, Offer, offer_of
from engram.explain.pretrained.private_network import private_network
from engram.explain.pretrained.reading import Explained
from engram.explain.pretrained.sharing import GuidedRectifiers, RelevanceFunctions
from engram.explain.rules import GRADIENTS
from engram.nn.pretrained.architecture import Place
from engram.nn.pretrained.modes import DefinedAttention
from engram.nn.pretrained.network import PretrainedNetwork
from engram.nn.pretrained.preprocessing import prepare
from engram.nn.pretrained.taps import Taps


@dataclass(frozen=True)
class Attribution:
    """What every value of an image does for one number."""

    relevance: Tensor
    """(C, H, W) float32."""
    logit: float
    """What is explained."""
    goal: float | None
    """What the relevance is meant to sum to: the logit, or how far it is from that of an even image, from which paths
    start. None where nothing is conserved."""
    composite: str

    @property
    def total(self) -> float:
        """The sum of the relevance."""
        return float(self.relevance.double().sum())

    @property
    def lost(self) -> float | None:
        """The share of the goal that the relevance does not sum to, in magnitude; None where nothing is conserved."""
        return None if self.goal is None else abs(self.total - self.goal) / max(abs(self.goal), 1e-12)


def explained_by_gradients(slope: Slope, pixels: Tensor, start: Tensor, composite: str) -> Attribution:
    """What a composite of gradients, or of averages of them, makes of a number's slope at an image and around it."""
    goal = None
    match composite:
        case "integrated_gradients":
            relevance, number, goal = integrated(slope, pixels, start)
        case "smooth_gradients":
            relevance, number = averaged_around(slope, pixels)
        case _:
            number, relevance = slope(pixels)
            relevance = relevance * pixels if composite == "gradient_times_input" else relevance
    return Attribution(relevance[0].cpu(), number, goal, composite)


class PretrainedExplainer:
    """Maker of heatmaps through one network, safe in many threads.

    All happens on a copy that nothing else sees, made when it is first needed; one heatmap is made at a time.

    Parameters
    ----------
    module
        The network in eval mode; it is only read.
    classifier
        Path of the module that reads the features.
    """

    def __init__(
        self, module: nn.Module, preprocessing: Preprocessing, levels: Sequence[Level], classifier: str
    ) -> None:
        self._module = module
        self._preprocessing = preprocessing
        self._levels = tuple(levels)
        self._classifier = classifier
        self._lock = threading.RLock()

    @classmethod
    def of(cls, network: PretrainedNetwork) -> Self:
        """The explainer of a loaded network."""
        description = network.description
        return cls(network.module, description.preprocessing, description.levels, network.classifier)

    def __reduce__(self) -> tuple[object, ...]:
        """Copied without what was made."""
        return PretrainedExplainer, (self._module, self._preprocessing, self._levels, self._classifier)

    @property
    def offer(self) -> Offer:
        """What fits the network."""
        with self._lock:
            return offer_of(self._flow)

    def explain(self, image: Tensor, reading: Explained, composite: str | None = None) -> Attribution:
        """What the pixels of an image (C, H, W) uint8 do for a number that is read of the network.

        Parameters
        ----------
        composite
            One of those that are offered; by default what suits the network.

        Raises
        ------
        UnknownComposite
        """
        with self._lock:
            offer = offer_of(self._flow)
            name = composite or offer.default
            if name not in offer.composites:
                known = ", ".join(offer.composites)
                raise UnknownComposite(f"no composite of this network is called {name!r}; there are {known}")
            given = image[None].to(next(self._private.parameters()).device)
            if name not in (*GRADIENTS, *PATHS):
                return self._propagated(given, reading, name)
            pixels = given / 255
            slope, start = partial(self.slope, reading=reading, composite=name), self.even(pixels)
            return explained_by_gradients(slope, pixels, start, name)

    def slope(self, pixels: Tensor, reading: Explained, composite: str) -> tuple[float, Tensor]:
        """The number for pixels (1, C, H, W) in [0, 1], and its gradient, guided or as it is."""
        guided = composite == "guided_backprop"
        with self._lock, GuidedRectifiers() if guided else nullcontext():
            return PixelLogit(self._taps, self._preprocessing, reading).slope(pixels)

    def even(self, pixels: Tensor) -> Tensor:
        """The image from which paths start."""
        return even_image(self._preprocessing, pixels)

    @cached_property
    def _flow(self) -> Flow:
        return flow_of(self._module, self._preprocessing.size, [DefinedAttention()])

    @cached_property
    def _private(self) -> nn.Module:
        return private_network(self._module, self._flow)

    @cached_property
    def _taps(self) -> Taps:
        places = [Place(level.name, level.layout, level.prefix) for level in self._levels]
        return Taps(self._private, places, self._classifier)

    def _propagated(self, image: Tensor, reading: Explained, composite: str) -> Attribution:
        """Layer-wise relevance propagation; what an operator adds by its bias alone takes none."""
        prepared = prepare(self._preprocessing, image).requires_grad_(True)
        low, high = (prepare(self._preprocessing, torch.full_like(image, value)) for value in (0, 255))
        rules = composite_for(composite, self._flow, (low, high))
        taps = self._taps  # made before the rules: their hooks come after its own
        with rules.context(self._private), torch.enable_grad():
            with DefinedAttention(), RelevanceFunctions():
                seen = taps.look(prepared)
            logit, seeds = float(reading.logit(seen).detach()), reading.seeds(seen)
            (relevance,) = torch.autograd.grad([tensor for tensor, _ in seeds], prepared, [start for _, start in seeds])
        return Attribution(self._spread(relevance, image)[0].cpu(), logit, logit, composite)

    def _spread(self, relevance: Tensor, image: Tensor) -> Tensor:
        """Relevance of the network's input, given to the pixels that it was resized from, by their weight in it."""
        grey = torch.full_like(image, 128, dtype=torch.float32).requires_grad_(True)
        with torch.enable_grad():
            prepared = prepare(self._preprocessing, grey)
        std = torch.tensor(self._preprocessing.std, device=image.device).view(1, 3, 1, 1)
        (spread,) = torch.autograd.grad(prepared, grey, relevance * 255 * std)
        return spread
