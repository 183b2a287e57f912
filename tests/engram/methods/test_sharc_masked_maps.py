"""Tests of SHARC's masked feature maps: storage, herding and the budget of bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from engram.config.sharc import SharcSettings
from engram.data.herding import herding_order, ordered_by_class
from engram.errors import CapacityExhausted, DamagedSnapshot
from engram.methods.sharc.masked_maps import MaskedMaps, Values, bytes_each
from engram.methods.sharc.replay_memory import ReplayMemory, maps_per_class
from engram.methods.sharc.saliency import mask

CHANNELS, PLACES = 11, 4


def _rows(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    maps = 5 * torch.rand(count, CHANNELS, PLACES, generator=generator)
    return maps, mask(torch.rand(count, CHANNELS, generator=generator), 0.5), torch.arange(count) % 4


@pytest.mark.parametrize(("values", "error"), [("uint8", 5 / 255), ("float16", 5e-3)])
def test_masked_maps_come_back_as_they_were_stored(values: Values, error: float) -> None:
    maps, masks, labels = _rows()
    stored = MaskedMaps.of(maps, masks, labels, values)
    assert torch.equal(stored.masks(), masks)
    assert torch.equal(stored.labels.long(), labels)
    expected = torch.where(masks[:, :, None], maps, 0)
    assert float((stored.cues() - expected).abs().max()) <= error
    again = MaskedMaps.load(stored.dump())
    assert torch.equal(again.cues(), stored.cues())
    kept = int(masks[0].sum())
    row = 2 + kept * PLACES * (1 if values == "uint8" else 2) + 2 + (2 if values == "uint8" else 0)
    assert stored.nbytes == row * 40 == 40 * bytes_each(CHANNELS, PLACES, kept, values)
    assert stored.nbytes <= len(stored.dump()) <= stored.nbytes + 600, "nothing is stored that is not counted"


def test_a_map_of_zeros_is_stored() -> None:
    maps = torch.zeros(1, CHANNELS, PLACES)
    stored = MaskedMaps.of(maps, torch.ones(1, CHANNELS, dtype=torch.bool), torch.zeros(1), "uint8")
    assert torch.equal(stored.cues(), maps)


def test_damaged_maps_are_refused() -> None:
    maps, masks, labels = _rows()
    stored = MaskedMaps.of(maps, masks, labels, "uint8")
    short = MaskedMaps(stored.bits[:-1], stored.small, stored.steps, stored.labels, CHANNELS, PLACES)
    with pytest.raises(DamagedSnapshot):
        MaskedMaps.load(short.dump())


def test_herding_chooses_greedily_what_brings_the_mean_nearest() -> None:
    features = torch.rand(25, 3, generator=torch.Generator().manual_seed(1)).double()
    rows = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    taken: list[int] = []
    for number in range(1, 11):
        errors = {
            row: np.linalg.norm(rows.mean(0) - (rows[taken].sum(0) + rows[row]) / number)
            for row in range(25)
            if row not in taken
        }
        taken.append(min(errors, key=lambda row: errors[row]))
    assert herding_order(features, 10).tolist() == taken


@pytest.mark.parametrize("keep", ["herding", "reservoir"])
def test_forgetting_leaves_every_class_its_first_maps(keep: str) -> None:
    maps, masks, labels = _rows()
    chosen = ordered_by_class(maps.flatten(1), labels, keep, 8, torch.Generator().manual_seed(2))
    assert len(chosen) == len(set(chosen.tolist())) == 32
    stored = MaskedMaps.of(maps[chosen], masks[chosen], labels[chosen], "uint8")
    left = stored.subset(stored.first(3))
    assert torch.bincount(left.labels.long()).tolist() == [3, 3, 3, 3]
    for label in range(4):
        assert torch.equal(left.cues()[left.labels == label], stored.cues()[stored.labels == label][:3])


@pytest.mark.parametrize("recall", ["gaussian", "hopfield", "none"])
@pytest.mark.parametrize("values", ["uint8", "float16"])
def test_the_budget_of_bytes_holds_whatever_is_learned(recall: str, values: str) -> None:
    settings = SharcSettings.model_validate(
        {"recall": recall, "values": values, "memory_bytes": 2500, "rank": 4, "quantile": 0.5}
    )
    maps, masks, labels = _rows(120)
    replay_memory = ReplayMemory.nothing(settings, (CHANNELS, PLACES))
    for task in range(3):
        classes = 2 * (task + 1)
        own = labels < 2
        new = labels[own] + 2 * task
        chosen = ordered_by_class(maps[own].flatten(1), labels[own], "herding", 99, torch.Generator())
        most = maps_per_class(settings, (CHANNELS, PLACES), classes)
        chosen = torch.cat([chosen[new[chosen] == label][:most] for label in range(2 * task, classes)])
        replay_memory = replay_memory.trimmed(most).taught(maps[own], new, classes)
        replay_memory = replay_memory.grown(maps[own][chosen], new[chosen], masks[own][chosen], settings)
        assert torch.bincount(replay_memory.masked_maps.labels.long()).tolist() == [min(most, 30)] * classes
        assert replay_memory.nbytes <= settings.memory_bytes
        if most < 30:
            row = replay_memory.nbytes / len(replay_memory.masked_maps)
            assert replay_memory.nbytes > settings.memory_bytes - (classes + 1) * row, "room is used where there is any"
        again = ReplayMemory.load(settings, *replay_memory.dump())
        assert torch.equal(again.recalled().maps, replay_memory.recalled().maps)


def test_a_memory_without_room_for_every_class_is_refused() -> None:
    with pytest.raises(CapacityExhausted, match="1024 bytes"):
        maps_per_class(SharcSettings(memory_bytes=1024), (64, 16), 2)
