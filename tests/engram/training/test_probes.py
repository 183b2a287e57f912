"""Tests of probes: what others see counts where it tells the classes apart, and not otherwise."""

from __future__ import annotations

import torch

from engram import Examples
from engram.checkpointing.progress import Reporter
from engram.training.probes import probe_accuracy, told
from testing.data.patterns import bars
from tests.engram.methods.staged.test_laws import learned, model


def test_values_that_tell_the_classes_are_found_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 3
    noise = torch.randn(400, 6, generator=generator)
    telling = torch.nn.functional.one_hot(labels, 3) + 0.3 * torch.randn(400, 3, generator=generator)
    halves = [labels[:200], labels[200:]]
    assert probe_accuracy([noise[:200], noise[200:]], halves) < 0.5
    both = torch.cat([noise, telling], 1)
    assert probe_accuracy([both[:200], both[200:]], halves) > 0.9


def test_a_task_seen_by_its_own_network_is_told_by_it() -> None:
    """An engram of chance weights sees little; the network that has learned the same images sees all."""
    method = model(learned("commons", (0,)))
    network = method.serving().network
    untrained = model(learned("commons", (1,))).serving().network.stack[0]
    images = bars(0)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    labels = images.labels[order]
    parts = [Examples(images.images[order[some]], labels[some], images.classes) for some in (slice(48), slice(48, 96))]
    own, both = told(network, untrained, ["task 0"], parts[0], parts[1], Reporter())
    assert both >= own
    assert both > 0.9
