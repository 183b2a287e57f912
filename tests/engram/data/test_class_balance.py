"""Tests of class balance: weights, priors, and orders that draw every class as often."""

from __future__ import annotations

import pytest
import torch

from engram import Examples
from engram.data.class_balance import balanced_order, class_weights, extended, image_weights, log_prior
from engram.data.examples import held_out_counts, small_classes, split


def examples(*counts: int) -> Examples:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    images = torch.arange(len(labels)).to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    return Examples(images, labels, tuple(f"class {number}" for number in range(len(counts))))


def test_classes_of_equally_many_images_have_no_weights() -> None:
    assert class_weights(examples(7, 7, 7)) is None
    assert log_prior(examples(7, 7)) is None


def test_every_class_counts_alike_and_an_image_1_in_the_mean() -> None:
    given = examples(90, 10)
    weights = class_weights(given)
    assert weights is not None
    assert weights.tolist() == pytest.approx([100 / 180, 5.0])
    assert float(weights[given.labels].mean()) == pytest.approx(1.0)
    prior = log_prior(given)
    assert prior is not None
    assert prior.exp().tolist() == pytest.approx([0.9, 0.1])


def test_images_have_the_share_of_their_class() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    assert image_weights(labels, torch.ones(2)).tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])
    assert image_weights(labels, torch.tensor([0.9, 0.1])).tolist() == pytest.approx([1.2, 1.2, 1.2, 0.4])
    assert image_weights(torch.tensor([0, 0]), torch.ones(2)).tolist() == [1.0, 1.0]


def test_an_order_draws_all_classes_alike_and_no_image_oftener_than_it_must() -> None:
    labels = examples(90, 10).labels
    order = balanced_order(labels, torch.Generator().manual_seed(0))
    assert len(order) == 100
    assert torch.bincount(labels[order]).tolist() == [50, 50]
    assert torch.bincount(order[labels[order] == 1] - 90).tolist() == [5] * 10
    assert len(set(order[labels[order] == 0].tolist())) == 50
    assert torch.equal(order, balanced_order(labels, torch.Generator().manual_seed(0)))
    assert not torch.equal(order, balanced_order(labels, torch.Generator().manual_seed(1)))


def test_classes_with_few_held_out_images_are_judged_by_learned_ones_too() -> None:
    train, held_out = split(examples(90, 10), 0.1, 0, recipe=2)
    judged = extended(held_out, train, 9)
    assert judged.counts() == (9, 9)
    assert torch.equal(judged.images[: len(held_out)], held_out.images)
    assert extended(held_out, train, 50).counts() == (50, 10), "never more than there are"
    assert extended(judged, train, 9) is judged, "what is known of these images need not be measured again"


def test_a_small_class_holds_out_up_to_a_quarter() -> None:
    given = examples(100, 10, 4, 60)
    assert small_classes(given) == (1, 2)
    assert held_out_counts(given, 0.1, 1) == (10, 1, 1, 6)
    assert held_out_counts(given, 0.1, 2) == (10, 2, 1, 6)
    for recipe in (1, 2):
        assert split(given, 0.1, 0, recipe=recipe)[1].counts() == held_out_counts(given, 0.1, recipe)
    assert held_out_counts(examples(10, 10), 0.1, 2) == (1, 1), "classes of one size as before"
