"""Tests of whole numbers as bytes: they come back, in no more bytes than they need."""

from __future__ import annotations

import pytest
import torch

from engram.errors import DamagedSnapshot
from engram.recognition.staged.integers import narrowed, symmetric, triangle, widened

EDGES = [
    0,
    1,
    -1,
    127,
    128,
    -128,
    -129,
    255,
    2**15 - 1,
    2**15,
    -(2**23),
    2**31,
    -(2**31) - 1,
    2**53,
    -(2**62),
    2**63 - 1,
]


@pytest.mark.parametrize("largest", EDGES)
def test_numbers_come_back_whatever_their_size(largest: int) -> None:
    values = torch.tensor([0, largest, largest // 2, -1])
    assert widened(narrowed(values)).equal(values)


@pytest.mark.parametrize(
    ("largest", "width"), [(0, 1), (127, 1), (128, 2), (-128, 1), (-129, 2), (2**23, 4), (2**39 - 1, 5)]
)
def test_the_width_is_the_smallest_that_holds_them(largest: int, width: int) -> None:
    planes = narrowed(torch.tensor([largest, 0]))
    assert planes.shape == (width, 2)
    assert largest.to_bytes(width, "little", signed=True) == bytes(planes[:, 0].tolist())


def test_nothing_is_a_whole_number_of_its_own() -> None:
    assert widened(narrowed(torch.zeros(0, dtype=torch.int64))).shape == (0,)


@pytest.mark.parametrize(
    "planes", [torch.zeros(9, 2, dtype=torch.uint8), torch.zeros(2, 2), torch.zeros(3, dtype=torch.uint8)]
)
def test_other_planes_are_damage(planes: torch.Tensor) -> None:
    with pytest.raises(DamagedSnapshot):
        widened(planes)


def test_a_triangle_is_a_symmetric_matrix() -> None:
    drawn = torch.randint(-(2**40), 2**40, (7, 7))
    matrix = drawn + drawn.T
    assert symmetric(triangle(matrix), 7).equal(matrix)
    with pytest.raises(DamagedSnapshot):
        symmetric(triangle(matrix), 8)
