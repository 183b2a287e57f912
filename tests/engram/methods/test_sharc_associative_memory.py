"""Tests of SHARC's associative memories: recall, masks, labels and bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from engram.methods.sharc.associative_memory import GaussianMemory, HopfieldMemory, NoCompletion, recall_error

CHANNELS, PLACES, COUNT = 6, 3, 400


def _maps(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positive maps of two classes whose channels go together."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(CHANNELS, 2, generator=generator)
    labels = torch.arange(COUNT) % 2
    latent = torch.randn(COUNT, 2, PLACES, generator=generator)
    own = 0.2 * torch.randn(COUNT, CHANNELS, PLACES, generator=generator)
    return 8 + labels[:, None, None] + mixing @ latent + own, labels


def _masks() -> Tensor:
    return torch.rand(COUNT, CHANNELS, generator=torch.Generator().manual_seed(7)) < 0.5


def _gaussian(rank: int) -> tuple[GaussianMemory, Tensor, Tensor]:
    maps, labels = _maps()
    return GaussianMemory.empty(CHANNELS, PLACES, rank).learned(maps, labels, 2), maps, labels


@pytest.mark.parametrize("rank", [2, CHANNELS])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_gaussian_recall_is_the_conditional_mean(rank: int, noise: float) -> None:
    """Against the textbook formula with the whole covariance matrix, place by place."""
    memory, maps, labels = _gaussian(rank)
    masks = _masks()[:20]
    found = memory.recall(maps[:20], masks, labels[:20], noise)
    covariance = memory.covariance.numpy()
    for row in range(20):
        known = masks[row].numpy()
        within = covariance[np.ix_(known, known)] + noise**2 * np.eye(known.sum())
        for place in range(PLACES):
            mean = memory.means[labels[row], :, place].double().numpy()
            gap = maps[row, :, place].double().numpy()[known] - mean[known]
            expected = mean + covariance[:, known] @ np.linalg.solve(within, gap)
            np.testing.assert_allclose(found[row, :, place].numpy(), expected, rtol=2e-4, atol=2e-4)


def test_a_gaussian_learned_in_two_parts_is_as_if_learned_at_once() -> None:
    maps, labels = _maps()
    parts = GaussianMemory.empty(CHANNELS, PLACES, CHANNELS)
    for label in range(2):
        parts = parts.learned(maps[labels == label], labels[labels == label], label + 1)
    whole, _, _ = _gaussian(CHANNELS)
    torch.testing.assert_close(parts.covariance, whole.covariance, rtol=5e-3, atol=5e-3)  # kept in half precision
    centred = maps - torch.stack([maps[labels == label].mean(0) for label in range(2)])[labels]
    flat = centred.transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(whole.covariance, flat @ flat.T / flat.shape[1], rtol=5e-3, atol=5e-3)


def _hopfield(beta: float, updates: int) -> tuple[HopfieldMemory, Tensor, Tensor]:
    maps, labels = _maps()
    maps, labels = maps[:30], labels[:30]
    memory = HopfieldMemory.empty("float16", CHANNELS * PLACES, beta, updates).learned(maps, labels, 2)
    return memory, maps, labels


def _softmax_update(memory: HopfieldMemory, state: Tensor) -> Tensor:
    """x <- sum_i p_i x_i, by loops."""
    patterns = memory.patterns().double()
    beta = float(memory.beta / memory.patterns().square().sum(1).mean())
    weights = [float(torch.exp(-beta / 2 * (pattern - state).square().sum())) for pattern in patterns]
    total = torch.zeros_like(state)
    for weight, pattern in zip(weights, patterns, strict=True):
        total += weight / sum(weights) * pattern
    return total


def _energy(memory: HopfieldMemory, state: Tensor) -> float:
    patterns = memory.patterns().double()
    beta = float(memory.beta / memory.patterns().square().sum(1).mean())
    closeness = beta * (patterns @ state - patterns.square().sum(1) / 2)
    return float(state.square().sum() / 2 - closeness.logsumexp(0) / beta)


def test_hopfield_retrieval_goes_to_a_fixed_point_of_the_softmax_update() -> None:
    everything = torch.ones(30, CHANNELS, dtype=torch.bool)
    (once, maps, _), (often, _, _) = _hopfield(400.0, 1), _hopfield(400.0, 200)
    cues = maps + 0.3
    first = once.recall(cues, everything, noise=1.0).flatten(1).double()
    last = often.recall(cues, everything, noise=1.0).flatten(1).double()
    for row in range(30):
        start = cues[row].flatten().double()
        torch.testing.assert_close(first[row], _softmax_update(once, start), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(_softmax_update(often, last[row]), last[row], rtol=1e-3, atol=1e-3)
        assert _energy(once, start) >= _energy(once, first[row]) - 1e-3
        assert _energy(once, first[row]) >= _energy(once, last[row]) - 1e-3


def test_a_cold_hopfield_memory_finds_the_very_pattern_from_half_of_it() -> None:
    memory, maps, labels = _hopfield(1e5, 1)
    masks = torch.tensor([True, False] * (CHANNELS // 2))[None].expand(30, -1)
    torch.testing.assert_close(memory.recall(maps, masks, labels), maps, rtol=2e-3, atol=2e-3)


def test_labels_narrow_what_a_hopfield_memory_recalls() -> None:
    memory, maps, labels = _hopfield(1e5, 1)
    nothing = torch.zeros(30, CHANNELS, dtype=torch.bool)
    for label in range(2):
        found = memory.recall(maps, nothing, torch.full((30,), label)).flatten(1)
        mean = memory.patterns()[labels == label].mean(0)
        torch.testing.assert_close(found[0], mean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["gaussian", "hopfield", "blank"])
def test_what_is_masked_is_not_read_and_what_is_known_stays(kind: str) -> None:
    memory = {"gaussian": _gaussian(2)[0], "hopfield": _hopfield(100.0, 3)[0], "blank": NoCompletion()}[kind]
    maps, labels = _maps()
    masks = _masks()
    found = memory.recall(maps, masks, labels)
    other = memory.recall(torch.where(masks[:, :, None], maps, torch.nan), masks, labels)
    assert torch.equal(found, other)
    assert torch.equal(found[masks], maps[masks])
    assert bool((found >= 0).all())
    error = recall_error(found, maps)
    assert recall_error(maps, maps) == 0
    assert error < 0.35 if kind == "gaussian" else error > 0


@pytest.mark.parametrize("kind", ["gaussian", "hopfield", "blank"])
def test_memories_are_the_same_after_bytes(kind: str) -> None:
    memory = {"gaussian": _gaussian(2)[0], "hopfield": _hopfield(100.0, 3)[0], "blank": NoCompletion()}[kind]
    maps, labels = _maps()
    again = type(memory).load(memory.dump())
    assert again.dump() == memory.dump()
    assert torch.equal(again.recall(maps, _masks(), labels), memory.recall(maps, _masks(), labels))
