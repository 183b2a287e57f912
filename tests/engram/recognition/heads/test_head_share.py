"""Tests of how much a head counts beside stage one."""

from __future__ import annotations

import torch

from engram.recognition.heads.head_share import EQUAL, head_share


def test_stage_one_counts_as_much_unless_held_out_images_tell_that_it_should_not() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(400) % 4
    hot = torch.nn.functional.one_hot(labels, 4).float()
    right, vague = 4 * hot, 2 * torch.randn(400, 4, generator=generator)
    wrong = 9 * torch.nn.functional.one_hot((labels + 1) % 4, 4).float()
    mistaken = torch.where((torch.arange(400) % 5 == 0)[:, None], wrong, right)
    assert head_share(right, right, labels) == EQUAL
    assert head_share(vague, right, labels) == EQUAL
    assert head_share(right, mistaken, labels) > EQUAL
    assert head_share(right[:4], mistaken[:4], labels[:4]) == EQUAL  # one image is no evidence


def test_a_head_that_errs_hardly_more_often_counts_alone_where_that_is_sure() -> None:
    """Stage one will err more often with every later task, the head will not."""
    labels = torch.arange(12000) % 4
    hot, wrong = (torch.nn.functional.one_hot(to, 4).float() for to in (labels, (labels + 1) % 4))
    number = torch.arange(12000)[:, None]
    head = torch.where(number % 1000 == 1, 2 * wrong, 4 * hot)  # stage one is right there, and surer
    ridge = torch.where(number % 1000 == 2, 2 * wrong, 4 * hot)
    worse = torch.where(number % 100 == 1, 2 * wrong, 4 * hot)
    assert head_share(head, ridge, labels) == EQUAL
    assert head_share(head, ridge, labels, sparing=True) == 1.0
    assert head_share(worse, ridge, labels, sparing=True) == EQUAL  # one in a hundred is much
    assert head_share(head[:1200], ridge[:1200], labels[:1200], sparing=True) == EQUAL  # of so few it is not sure
    assert head_share(4 * hot[:80], 4 * hot[:80], labels[:80], sparing=True) == EQUAL
