"""Tests of fixed batch shapes: cutting and padding, and rows that know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from engram.nn.shapes import SHAPES, RowwiseLinear, in_shapes
from tests.engram.nn.reading import random_network


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 9, 16, 17, 31, 32, 50])
def test_any_number_of_images_is_computed_in_shapes_alone(count: int) -> None:
    images, seen = torch.arange(3.0 * count).reshape(count, 3), []

    def run(part: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(part))
        return part * 2, part.sum(1)

    doubled, summed = in_shapes(images, run)
    assert torch.equal(doubled, images * 2)
    assert torch.equal(summed, images.sum(1))
    assert set(seen) <= set(SHAPES)
    assert len(seen) == max(1, -(-count // 16)), "no more parts than needed"
    assert torch.equal(in_shapes(images, lambda part: part + 1), images + 1)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 21])
def test_some_rows_are_computed_in_shapes_alone(count: int) -> None:
    images, seen = torch.rand(40, 3, 5), []
    rows = torch.randperm(40)[:count].sort().values

    def run(part: Tensor) -> Tensor:
        seen.append(len(part))
        assert part.data_ptr() % 64 == 0
        return part * 2

    assert torch.equal(in_shapes(images, run, rows.numpy()), images[rows] * 2)
    assert set(seen) <= set(SHAPES)
    assert len(seen) == -(-count // 16)


def test_what_is_added_is_zero_and_images_are_not_changed() -> None:
    images = torch.ones(3, 2)

    def run(part: Tensor) -> Tensor:
        assert torch.equal(part[3:], torch.zeros(1, 2))
        return part.mul_(5)

    assert torch.equal(in_shapes(images, run), torch.full((3, 2), 5.0))
    assert torch.equal(images, torch.ones(3, 2))


def test_images_at_any_address_are_computed_at_an_aligned_one() -> None:
    def run(part: Tensor) -> Tensor:
        assert part.data_ptr() % 64 == 0
        return part

    for start in range(8):
        images = torch.rand(40, 5)[start : start + 4]
        assert torch.equal(in_shapes(images, run), images)


@pytest.mark.parametrize(("values", "outputs"), [(1, 1), (17, 10), (33, 3), (513, 13), (580, 1), (1024, 128)])
def test_rows_of_a_linear_map_are_the_same_bytes_in_any_batch(threads: int, values: int, outputs: int) -> None:
    """A product of matrices fails this test: its last rows are computed by other kernels."""
    linear = torch.nn.Linear(values, outputs)
    rowwise = RowwiseLinear(linear.weight, linear.bias)
    given = torch.randn(16, values)
    with torch.no_grad():
        found, expected = rowwise(given), linear.double()(given.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    for row in range(16):
        assert torch.equal(rowwise(given[row : row + 1])[0], found[row])
        assert torch.equal(rowwise(torch.cat([torch.full((row, values), 9.0), given[row:]]))[row], found[row])


@pytest.mark.parametrize(
    ("backbone", "channels", "width"),
    [("mlp", 1, 0.5), ("mlp", 3, 0.13), ("cnn", 3, 1.0), ("cnn", 1, 0.3), ("resnet18", 3, 0.25)],
)
def test_an_answer_depends_on_no_neighbour_and_no_row(threads: int, backbone: str, channels: int, width: float) -> None:
    network = random_network(backbone, owners=2, seed=channels, channels=channels, width=width)
    side = network.layout.image_size
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(channels, *side, generator=generator)
    for shape in SHAPES:
        answers = []
        for row in sorted({0, shape // 2, shape - 1}):
            for scale in (1.0, 1e4):
                images = torch.rand(shape, channels, *side, generator=generator) * scale
                images[row] = image
                features, logits = network.answer("task 1", images)
                answers.append(torch.cat([features[row], logits[row]]))
        assert all(torch.equal(answer, answers[0]) for answer in answers), shape


def test_images_beyond_a_shape_are_answered_as_in_a_shape() -> None:
    network = random_network("cnn", owners=2)
    images = torch.rand(21, 1, *network.layout.image_size)
    _, logits = network.answer("task 1", images)
    assert logits.shape == (21, 3)
    assert torch.equal(logits[:16], network.answer("task 1", images[:16])[1])
    assert torch.equal(logits[16:], network.answer("task 1", torch.cat([images[16:], images[:3]]))[1][:5])


@pytest.mark.parametrize(("values", "outputs"), [(16, 1), (128, 2), (130, 3), (784, 256), (2048, 2), (2056, 17)])
@pytest.mark.parametrize("count", [2, 3, 16, 31])
def test_rows_at_once_have_the_bytes_of_each_row(threads: int, count: int, values: int, outputs: int) -> None:
    linear = torch.nn.Linear(values, outputs)
    rowwise, given = RowwiseLinear(linear.weight, linear.bias), torch.randn(count, values)
    with torch.no_grad():
        assert torch.equal(rowwise(given), torch.cat([rowwise(row) for row in torch.split(given, 1)]))


@pytest.mark.parametrize("rows", [[20], [0, 3, 20], [1, 2, 5, 7]])
def test_some_images_of_a_batch_are_answered_as_by_themselves(rows: list[int]) -> None:
    network = random_network("cnn", owners=2)
    images = torch.rand(21, 1, *network.layout.image_size)
    found = network.answer("task 1", images, torch.tensor(rows).numpy())
    for some, expected in zip(found, network.answer("task 1", images[rows]), strict=True):
        assert torch.equal(some, expected)
