"""Commons whose features lie on a fixed grid, so that sums over them are exact."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.checkpointing.progress import Reporter
from engram.config.definition import InputShape, ResolvedCommons
from engram.nn.commons.bank import STEP, Bank, covered
from engram.nn.commons.base import Commons, sample
from engram.nn.commons.dead_leaves import dead_leaves
from engram.nn.commons.filters import learned_filters, smooth_filters
from engram.nn.commons.prepared_bank import PreparedBank

WHITENING = 0.3
"""Added to the eigenvalues of the patches' covariance, so that directions of mere noise are not blown up."""


class GridCommons(Commons):
    """Banks of filters side by side; every feature is a whole multiple of `step`, from 0 to 4095.

    An image's features are the same bytes whatever its neighbours, the size of the batch, the number of threads and
    the order in which it comes.

    Parameters
    ----------
    dictionary
        What filters are learned from in place of the first task's images; there is `dead_leaves`.
    """

    def __init__(
        self, shape: InputShape, banks: Sequence[ResolvedCommons], seed: int, dictionary: str | None = None
    ) -> None:
        super().__init__()
        self.dictionary, self._channels = dictionary, shape.channels
        self.shrink = shape.shrink
        height, width = shape.height // self.shrink, shape.width // self.shrink
        self.banks = nn.ModuleList(Bank(about, shape.channels, height, width) for about in banks)
        self.features = sum(bank.features for bank in self.each())
        self.step = STEP
        self._seed = seed
        self._prepared: tuple[object, tuple[PreparedBank, ...]] | None = None
        generator = self._generator()
        for bank in self.each():
            if bank.about.kind == "smooth":
                bank.set(smooth_filters(bank.count, shape.channels, bank.patch, generator), torch.zeros(bank.count))

    def each(self) -> list[Bank]:
        """The banks."""
        return [cast(Bank, bank) for bank in self.banks]

    @property
    def device(self) -> torch.device:
        return self.each()[0].filters.weight.device

    @property
    def fixed(self) -> bool:
        return all(bool(bank.filters.weight.any()) for bank in self.each())

    @property
    def needs_images(self) -> bool:
        return self.dictionary is None and not self.fixed

    @torch.no_grad()
    def fitted(self, images: Tensor, reporter: Reporter | None = None) -> Self:
        if self.fixed:
            return self
        reporter, generator = reporter or Reporter(), self._generator()
        other = copy.deepcopy(self)
        some = sample(images, generator) if self.dictionary is None else dead_leaves(self._channels)
        for number, bank in enumerate(other.each()):
            if bank.about.kind == "learned":
                name = f"filters {number}" if number else "filters"
                bank.set(*reporter.journal.once(name, partial(self._learned, bank, some, reporter)))
        return other

    def _learned(self, bank: Bank, images: Tensor, reporter: Reporter) -> tuple[Tensor, Tensor]:
        """As `learned_filters`."""
        shrunk = []
        for part in torch.split(images, 256):
            reporter.check()
            values = part.to(torch.float32) / 255.0
            shrunk.append(values if self.dictionary else self.pixels(values).permute(0, 3, 1, 2) / 255.0)
        return learned_filters(
            torch.cat(shrunk),
            bank.count,
            bank.patch,
            bank.contrast_floor,
            self._generator(),
            reporter,
            whitening=WHITENING,
            mirror=bank.about.mirror,
        )

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self._features((images * 255.0).round_())

    @torch.no_grad()
    def of_bytes(self, images: Tensor) -> Tensor:
        return self._features(images.float())

    def _features(self, whole: Tensor) -> Tensor:
        """(B, C, H, W) whole numbers from 0 to 255 -> (B, features)."""
        if not len(whole):
            return whole.new_zeros(0, self.features)
        pixels = self._averaged(whole)
        parts = [bank(pixels) for bank in self._ready()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # (B, features)

    def _ready(self) -> tuple[PreparedBank, ...]:
        """The banks prepared; anew where filters were set or moved since."""
        banks = self.each()
        parts = [part for bank in banks for part in (bank.filters.weight, cast(Tensor, bank.offsets))]
        key = [(part.device, part._version) for part in parts]
        prepared = self._prepared
        if prepared is None or prepared[0] != key:
            prepared = self._prepared = (key, tuple(map(PreparedBank, banks)))
        return prepared[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_prepared": None}  # filters that are laid out for a kernel cannot be copied

    def pixels(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, h, w, C) whole numbers from 0 to 255: large images averaged down."""
        return self._averaged((images * 255.0).round_())

    def _averaged(self, whole: Tensor) -> Tensor:
        if self.shrink > 1:
            sums = F.avg_pool2d(whole[(..., *self.covered(whole))], self.shrink, divisor_override=1)
            whole = sums.div_(self.shrink**2).round_()
        return whole.permute(0, 2, 3, 1).contiguous()

    def covered(self, images: Tensor) -> tuple[slice, slice]:
        """Rows and columns of images (B, C, H, W) that are averaged: what is over is left out at both ends."""
        rows, columns = (covered(side, side - side % self.shrink) for side in images.shape[2:])
        return rows, columns
