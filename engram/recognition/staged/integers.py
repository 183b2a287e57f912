"""Whole numbers as bytes, in the smallest width that holds them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.checkpointing.triangles import symmetric, triangle
from engram.errors import DamagedSnapshot
from engram.nn.commons import Commons

LARGEST = 2**53
"""Up to here float64 holds every whole number, so that sums of them are exact."""

DIGIT = 6
"""Bits of a digit."""

BASE = 2**DIGIT
"""Of the two digits that a whole number of 12 bits has: products of such bytes are added up many at a time."""

MOST_ROWS = 2**19
"""Of digits: the sums of so many products fit in 32 bits."""

LEAST_SIDE = 16
"""Rows and columns of which it is worth it; of a single one products of bytes are not what they should be."""

TRIED = 257
"""Rows and columns by which it is found out whether products of bytes are exact."""


def narrowed(values: Tensor) -> Tensor:
    """(width, n) uint8: the bytes of whole numbers (n,) int64, the lowest first, the highest with the sign.

    The inverse is `widened`.
    """
    given = values.contiguous().numpy()
    low, high = (int(given.min()), int(given.max())) if len(given) else (0, 0)
    width = max((low if low >= 0 else ~low).bit_length(), (high if high >= 0 else ~high).bit_length()) // 8 + 1
    columns = given.astype("<i8").view(numpy.uint8).reshape(-1, 8)[:, :width]
    return torch.from_numpy(numpy.ascontiguousarray(columns.T))


def widened(planes: Tensor) -> Tensor:
    """(n,) int64 from their bytes (width, n) uint8; raises DamagedSnapshot."""
    if planes.ndim != 2 or planes.dtype != torch.uint8 or not 1 <= len(planes) <= 8:
        raise DamagedSnapshot("whole numbers are stored as one to eight planes of bytes")
    found = planes.numpy()
    wide = numpy.empty((found.shape[1], 8), dtype=numpy.uint8)
    wide[:, : len(found)] = found.T
    wide[:, len(found) :] = numpy.where(found[-1] >= 128, 255, 0)[:, None]
    return torch.from_numpy(wide.view("<i8").reshape(-1).astype(numpy.int64))


def narrowed_gram(gram: Tensor) -> dict[str, Tensor]:
    """The upper triangle of a Gram matrix (F, F) of whole numbers, in as few bytes as each of them may need.

    No number exceeds the root of the product of those on the diagonal in its row and column (Cauchy and Schwarz), but
    for a rounding: so the diagonal tells how wide each is.
    """
    diagonal, widths = gram.diagonal().to(torch.int64), _widths(gram.diagonal())
    upper = triangle(gram).numpy()
    found = {"diagonal": narrowed(diagonal)}
    for width in _there(widths):
        planes = narrowed(torch.from_numpy(upper[widths == width]).to(torch.int64))
        assert len(planes) <= width, "these numbers are of no Gram matrix"
        missing = torch.where(planes[-1:] >= 128, 255, 0).to(torch.uint8).expand(width - len(planes), -1)
        found[f"width {width}"] = torch.cat([planes, missing])
    return found


def widened_gram(tensors: Mapping[str, Tensor]) -> Tensor:
    """The inverse of `narrowed_gram`: (F, F) int64; raises DamagedSnapshot, or KeyError for a part that is missing."""
    diagonal = widened(tensors["diagonal"])
    widths = _widths(diagonal)
    upper = numpy.empty(len(widths), dtype=numpy.int64)
    for width in _there(widths):
        planes, places = widened(tensors[f"width {width}"]), numpy.flatnonzero(widths == width)
        if len(planes) != len(places):
            raise DamagedSnapshot(f"a Gram matrix has {len(places)} numbers of {width} bytes, not {len(planes)}")
        upper[places] = planes.numpy()
    return symmetric(torch.from_numpy(upper), len(diagonal))


def _there(widths: NDArray[numpy.uint8]) -> list[int]:
    """The widths that there are, ascending."""
    return numpy.flatnonzero(numpy.bincount(widths)).tolist()


def _widths(diagonal: Tensor) -> NDArray[numpy.uint8]:
    """Bytes of each number of the upper triangle, row by row, by the diagonal (F,) of the Gram matrix."""
    # One more, since a mean square of under one half is rounded to none.
    lengths = torch.tensor([(max(0, int(number)) + 1).bit_length() for number in diagonal.tolist()], dtype=torch.uint8)
    bits = lengths[:, None] + lengths
    bits.add_(1).bitwise_right_shift_(1).add_(1)  # one more for what was rounded
    return numpy.asarray(triangle(bits.bitwise_right_shift_(3).add_(1)).numpy())


def step_of(commons: Commons) -> float:
    """What features of the commons are multiples of."""
    assert commons.step is not None, "staged models have commons on a grid"
    return commons.step


def of_twelve_bits(levels: Tensor) -> bool:
    """Whether whole numbers are all from 0 to 4095."""
    least, most = torch.aminmax(levels)
    return float(least) >= 0 and float(most) < BASE**2


@dataclass(frozen=True)
class Digits:
    """Whole numbers (N, F) from 0 to 4095 as two digits to the base 64, whose products are exact."""

    high: Tensor
    """(N, F) int8."""
    low: Tensor
    """(N, F) int8."""
    apart: Tensor
    """(N, F) int8: the high digit less the low one."""

    @classmethod
    def of(cls, levels: Tensor) -> Self | None:
        """Of whole numbers; None where they are others, and where products of bytes are not exact or take long."""
        if min(levels.shape) < LEAST_SIDE or len(levels) > MOST_ROWS or not _multiplies_bytes():
            return None
        if not of_twelve_bits(levels):
            return None
        return cls._of_twelve_bits(levels.to(torch.int16))

    @classmethod
    def _of_twelve_bits(cls, whole: Tensor) -> Self:
        # By bits: divisions of whole numbers take four times as long.
        high, low = (whole >> DIGIT).to(torch.int8), (whole & (BASE - 1)).to(torch.int8)
        return cls(high, low, high - low)

    def products(self, first: int, end: int) -> Tensor:
        """(end - first, F - first) float64: of some columns with themselves and all that follow."""
        # 64 h + l has the square 4096 h h + 64 (h l + l h) + l l; what is in brackets is h h + l l - (h - l) (h - l).
        found = torch.zeros((), dtype=torch.float64)
        for part, weight in ((self.high, BASE**2 + BASE), (self.low, 1 + BASE), (self.apart, -BASE)):
            found = torch._int_mm(part.T[first:end], part[:, first:]).double().mul_(weight).add_(found)
        return found

    @classmethod
    def exact(cls) -> bool:
        """Whether products are what float64 makes them, tried where sums are as large as they get."""
        levels = torch.randint(0, BASE**2, (TRIED, TRIED), generator=torch.Generator().manual_seed(0))
        for part, value in zip(torch.split(levels, TRIED // 4), (0, BASE - 1, BASE * (BASE - 1)), strict=False):
            part[:] = value
        digits, wide = cls._of_twelve_bits(levels.to(torch.int16)), levels.double()
        parts = ((0, TRIED - 1), (TRIED - 1, TRIED), (TRIED // 2, TRIED // 2 + 1))
        return all(digits.products(first, end).equal(wide[:, first:end].T @ wide[:, first:]) for first, end in parts)


@cache
def _multiplies_bytes() -> bool:
    """Whether a library multiplies bytes here, and exactly: PyTorch's own way takes longer than float64 does."""
    there = hasattr(torch, "_int_mm") and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    if not there or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return False
    return Digits.exact()
