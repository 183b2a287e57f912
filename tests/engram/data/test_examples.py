"""Tests of examples: splits by class, and refusals of what no classifier can be learned from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engram.data.examples import ClassesNeeded, Examples, split
from engram.errors import ExamplesError, TooFewClasses, TooFewImages


def examples(counts: list[int], classes: tuple[str, ...] | None = None, held_out: Examples | None = None) -> Examples:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    images = torch.arange(len(labels)).to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()
    names = classes or tuple(f"class-{label}" for label in range(len(counts)))
    return Examples(images, labels, names, held_out)


@given(
    counts=st.lists(st.integers(2, 40), min_size=2, max_size=5), share=st.floats(0.01, 0.99), seed=st.integers(0, 99)
)
def test_a_split_divides_every_class_and_loses_nothing(counts: list[int], share: float, seed: int) -> None:
    whole = examples(counts)
    train, held_out = split(whole, share, seed)
    together = torch.cat([train.images, held_out.images])[:, 0, 0, 0].sort().values
    assert torch.equal(together, whole.images[:, 0, 0, 0].sort().values)
    for all_, learned, judged in zip(counts, train.counts(), held_out.counts(), strict=True):
        assert learned >= 1
        assert judged >= 1
        assert learned + judged == all_
        assert abs(judged - all_ * share) <= 1


def test_the_seed_decides_and_only_the_seed() -> None:
    whole = examples([30, 30])
    assert torch.equal(split(whole, 0.3, 1)[1].images, split(whole, 0.3, 1)[1].images)
    assert not torch.equal(split(whole, 0.3, 1)[1].images, split(whole, 0.3, 2)[1].images)


def test_some_examples_are_of_all_classes_and_spread_over_each() -> None:
    some = examples([60, 3, 1]).evenly(30)
    assert some.counts() == (10, 3, 1)
    assert some.images[:10, 0, 0, 0].tolist() == [0, 6, 13, 19, 26, 32, 39, 45, 52, 59]
    assert examples([3, 2]).evenly(1).counts() == (1, 1)


def test_held_out_images_of_the_upload_are_taken_as_they_are() -> None:
    given_ = examples([1, 2])
    train, held_out = split(examples([5, 6], held_out=given_), 0.5, 0)
    assert train.counts() == (5, 6)
    assert held_out is given_
    assert train.held_out is None


def test_one_class_is_refused_unless_one_is_enough() -> None:
    with pytest.raises(TooFewClasses, match=r"^a task needs at least two classes; there is 1$"):
        examples([9]).check()
    one = ClassesNeeded(1)
    examples([9]).check(one)
    assert [part.counts() for part in split(examples([9]), 0.3, 0, needed=one)] == [(6,), (3,)]
    with pytest.raises(TooFewClasses, match="needs at least one class; there is none"):
        Examples(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), ()).check(one)


def test_a_class_with_one_image_is_refused_and_named() -> None:
    with pytest.raises(TooFewImages, match="class-1"):
        split(examples([9, 1]), 0.5, 0)


def test_a_class_without_held_out_image_is_refused() -> None:
    with pytest.raises(TooFewImages, match="held-out"):
        examples([9, 9], held_out=examples([2, 0])).check()


@pytest.mark.parametrize(
    "broken",
    [
        examples([3, 3], classes=("same", "same")),
        examples([3, 3, 3], classes=("a", "b")),
        examples([3, 3], held_out=examples([3, 3], classes=("x", "y"))),
    ],
)
def test_labels_and_classes_must_agree(broken: Examples) -> None:
    with pytest.raises(ExamplesError):
        broken.check()
