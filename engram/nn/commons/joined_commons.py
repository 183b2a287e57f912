"""Several commons side by side, each with a grid of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, islice
from typing import Self, cast

import torch
from torch import Tensor, nn

from engram.checkpointing.progress import Reporter
from engram.nn.commons.base import Commons, Look
from engram.nn.commons.outputs import Outputs
from engram.nn.commons.pretrained_commons import PretrainedCommons
from engram.nn.commons.ridges import Ridges


class JoinedCommons(Commons):
    """Several commons, whose features lie side by side; maps are those of the first that has any.

    Parameters
    ----------
    regressions
        How many of them each regression reads, in order; those of one have the same step and ridges.
    """

    def __init__(self, parts: Sequence[Commons], regressions: Sequence[int]) -> None:
        super().__init__()
        assert sum(regressions) == len(parts), "each of the commons is read by one regression"
        self.parts = nn.ModuleList(parts)
        self.features = sum(part.features for part in parts)
        self.regressions = tuple(regressions)

    def each(self) -> list[Commons]:
        """The commons."""
        return [cast(Commons, part) for part in self.parts]

    @property
    def device(self) -> torch.device:
        return self.each()[0].device

    @property
    def fixed(self) -> bool:
        return all(part.fixed for part in self.each())

    @property
    def needs_images(self) -> bool:
        return any(part.needs_images for part in self.each())

    @property
    def maps(self) -> tuple[int, int] | None:
        return next((part.maps for part in self.each() if part.maps is not None), None)

    def place(self, device: torch.device) -> None:
        for part in self.each():
            part.place(device)

    def placed(self, device: torch.device) -> Self:
        other = copy.copy(self)
        other._modules = {"parts": nn.ModuleList(part.placed(device) for part in self.each())}
        return other

    def outputs(self) -> Outputs | None:
        found, before = self.each()[self._shown].outputs(), self.each()[: self._shown]
        if found is None:
            return None
        # The first network, which is the first that its regression reads.
        part = list(accumulate(self.regressions, initial=0)).index(self._shown)
        return replace(found, part=part, first=sum(one.features for one in before))

    def require(self) -> None:
        for part in self.each():
            part.require()

    def _read(self) -> list[list[Commons]]:
        """For each regression the commons that it reads."""
        parts = iter(self.each())
        return [list(islice(parts, count)) for count in self.regressions]

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(sum(part.features for part in read) for read in self._read())

    @property
    def steps(self) -> tuple[float, ...]:
        return tuple(step for read in self._read() for step in read[0].steps)

    @property
    def ridges(self) -> tuple[Ridges, ...]:
        return tuple(ridges for read in self._read() for ridges in read[0].ridges)

    def fitted(self, images: Tensor, reporter: Reporter | None = None) -> Self:
        if self.fixed:
            return self
        other = copy.copy(self)
        other._modules = {"parts": nn.ModuleList(part.fitted(images, reporter) for part in self.each())}
        return other

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([part(images) for part in self.each()], 1)

    @torch.no_grad()
    def of_bytes(self, images: Tensor) -> Tensor:
        return torch.cat([part.of_bytes(images) for part in self.each()], 1)

    @torch.no_grad()
    def mapped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, maps = [], None
        for part in self.each():
            if maps is None and part.maps is not None:
                own, maps = part.mapped(images)
            else:
                own = part.of_bytes(images)
            features.append(own)
        assert maps is not None, "commons without maps are not asked for any"
        return torch.cat(features, 1), maps

    @property
    def _shown(self) -> int:
        """Which of the commons tells more than features: of networks the first, whose maps and logits are asked for."""
        networks = (number for number, part in enumerate(self.each()) if isinstance(part, PretrainedCommons))
        return next(networks, 0)

    @torch.no_grad()
    def look(self, images: Tensor) -> Look:
        shown = self._shown
        first = self.each()[shown].look(images)
        features = [part.of_bytes(images).cpu() for number, part in enumerate(self.each()) if number != shown]
        features.insert(shown, first.features)
        return Look(first.given, torch.cat(features, 1), first.logits)
