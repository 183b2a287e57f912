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
