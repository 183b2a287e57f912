"""Tests of attention by its definition, of draws while building, and of the count of operations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engram.errors import InvalidBackbone
from engram.nn.pretrained.modes import DefinedAttention, Operations, OwnDraws


def test_attention_is_its_definition() -> None:
    query, key, value = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0))
    with DefinedAttention():
        found = F.scaled_dot_product_attention(query, key, value)
    plain = (query @ key.transpose(-1, -2) / math.sqrt(8)).softmax(-1) @ value
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("batch_first", [True, False])
def test_several_heads_are_those_of_pytorch(batch_first: bool) -> None:
    module = nn.MultiheadAttention(16, 4, batch_first=batch_first).eval()
    tokens = torch.randn(3, 7, 16)
    with torch.no_grad():
        plain, _ = module(tokens, tokens, tokens, need_weights=False)
        with DefinedAttention():
            found, weights = module(tokens, tokens, tokens, need_weights=False)
    assert weights is None
    torch.testing.assert_close(found, plain)


def test_masks_are_not_passed_over() -> None:
    module = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    tokens = torch.randn(1, 7, 16)
    with torch.no_grad(), DefinedAttention(), pytest.raises(InvalidBackbone):
        module(tokens, tokens, tokens, attn_mask=torch.ones(7, 7, dtype=torch.bool).triu(1), need_weights=False)


def test_building_moves_no_generator_but_its_own() -> None:
    state = torch.get_rng_state()
    with OwnDraws():
        nn.Sequential(nn.Linear(3, 4), nn.Conv2d(2, 2, 3), nn.MultiheadAttention(4, 2), nn.Embedding(3, 2))
        for low, high in ((-2.0, 2.0), (0.1, 2.0), (2.0, 2.5)):
            found = nn.init.trunc_normal_(torch.full((64, 64), 9.0), a=low, b=high)
            assert bool(((found >= low) & (found <= high)).all()), "it ends, and is within its bounds"
        nn.init.kaiming_normal_(torch.empty(4, 4))
        torch.randn(2), torch.rand(2), torch.randperm(3), torch.randint(0, 2, (3,)), torch.normal(0.0, 1.0, (2,))
    assert torch.equal(torch.get_rng_state(), state)
    nn.Linear(3, 4)
    assert not torch.equal(torch.get_rng_state(), state)


def test_operations_are_counted() -> None:
    operations = Operations()
    with torch.no_grad(), operations:
        F.linear(torch.zeros(5, 3), torch.zeros(7, 3))
        F.conv2d(torch.zeros(1, 2, 8, 8), torch.zeros(4, 2, 3, 3))
    assert operations.count == 5 * 3 * 7 + 4 * 6 * 6 * 2 * 9
