"""Tests of whole numbers as bytes: they come back, in no more bytes than they need."""

from __future__ import annotations

import pytest
import torch

from engram.checkpointing.triangles import BLOCK, symmetric, triangle
from engram.errors import DamagedSnapshot
from engram.recognition.staged.integers import BASE, LEAST_SIDE, Digits, narrowed, narrowed_gram, widened, widened_gram

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


@pytest.mark.parametrize("size", [0, 1, 7, BLOCK, 2 * BLOCK + 1])
def test_a_triangle_is_a_symmetric_matrix(size: int) -> None:
    drawn = torch.randint(-(2**40), 2**40, (size, size))
    matrix, rows = drawn + drawn.T, torch.triu_indices(size, size)
    assert triangle(matrix).equal(matrix[rows[0], rows[1]])
    assert symmetric(triangle(matrix), size).equal(matrix)
    with pytest.raises(DamagedSnapshot):
        symmetric(triangle(matrix), size + 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_gram_matrix_comes_back_in_fewer_bytes_than_its_widest_number_would_take(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scales = 10 ** torch.linspace(0, 3.6, 40, dtype=torch.float64)
    values = (torch.rand(300, 40, generator=generator, dtype=torch.float64) * scales).round()
    gram = (values.T @ values).to(torch.int64)
    parts = narrowed_gram(gram)
    assert widened_gram(parts).equal(gram)
    assert sum(part.numel() for part in parts.values()) < narrowed(triangle(gram)).numel()


@pytest.mark.parametrize("largest", [0, 1, 127, 128, 2**15, 2**31, 2**52])
def test_numbers_at_the_bound_of_a_gram_matrix_come_back(largest: int) -> None:
    gram = torch.tensor([[largest, -largest, 0], [-largest, largest, 0], [0, 0, 0]])
    assert widened_gram(narrowed_gram(gram)).equal(gram)


def test_a_gram_matrix_of_other_parts_is_damage() -> None:
    parts = narrowed_gram(torch.eye(4, dtype=torch.int64) * 1000)
    with pytest.raises((KeyError, DamagedSnapshot, RuntimeError)):
        widened_gram({**parts, "diagonal": narrowed(torch.full((4,), 2**40))})
    with pytest.raises(DamagedSnapshot, match="has 10 numbers of 2 bytes, not 9"):
        widened_gram({**parts, "width 2": parts["width 2"][:, 1:]})


@pytest.mark.parametrize(("count", "size"), [(LEAST_SIDE, 17), (700, LEAST_SIDE), (33, 301)])
def test_products_of_digits_are_those_of_the_whole_numbers(count: int, size: int) -> None:
    levels = torch.randint(0, BASE**2, (count, size), generator=torch.Generator().manual_seed(count))
    levels[: count // 2] = BASE**2 - 1  # sums as large as they get
    levels[:, 0] = 0
    digits = Digits.of(levels.float())
    if digits is None:
        pytest.skip("this processor has no fast products of bytes")
    for first, end in ((0, size), (0, 1), (size - 1, size), (4, 9)):
        assert digits.products(first, end).equal((levels.T @ levels)[first:end, first:].double())


@pytest.mark.parametrize("other", [-1.0, float(BASE**2)])
def test_other_numbers_have_no_two_digits(other: float) -> None:
    levels = torch.ones(2 * LEAST_SIDE, LEAST_SIDE)
    assert Digits.of(levels[: LEAST_SIDE - 1]) is None
    levels[3, 5] = other
    assert Digits.of(levels) is None
