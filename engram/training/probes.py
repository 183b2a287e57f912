"""Probes of whether earlier networks have anything to tell a new one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.nn.batches import at_once, in_parts
from engram.nn.network import Engram, Network, pixels

MOST_IMAGES = 2048
"""Images that a probe is fitted on and judged by, at most."""

RIDGE = 1e-2
"""Ridge, as a share of the mean variance: a probe is to tell what is there, not to be as good as can be."""


def told(
    network: Network, engram: Engram, owners: Sequence[str], train: Examples, judged: Examples, reporter: Reporter
) -> tuple[float, float]:
    """Accuracy of linear probes on images that an engram is judged by: over its own features, and over others' too.

    Parameters
    ----------
    network
        That of the owners; it is asked for their answers.
    engram
        Trained, and reading nothing.

    Raises
    ------
    Cancelled
    """
    own, others = zip(*(_seen(network, engram, owners, one, reporter) for one in (train, judged)), strict=True)
    labels = [_some(one).labels for one in (train, judged)]
    both = [torch.cat(pair, 1) for pair in zip(own, others, strict=True)]
    return probe_accuracy(own, labels), probe_accuracy(both, labels)


def _some(examples: Examples) -> Examples:
    count = len(examples)
    return examples.subset(torch.linspace(0, count - 1, min(count, MOST_IMAGES)).long())


@torch.no_grad()
def _seen(
    network: Network, engram: Engram, owners: Sequence[str], examples: Examples, reporter: Reporter
) -> tuple[Tensor, Tensor]:
    """Own features (N, F) and those of the owners side by side (N, F'), of some of the images."""
    some, own, others = _some(examples), [], []
    engram.eval()
    size = at_once(engram.layout, engram.reach, EVALUATION_BATCH)

    def both(part: Tensor) -> tuple[Tensor, ...]:
        images = pixels(part.to(next(engram.parameters()).device))
        theirs = torch.cat([network.answer(owner, images)[0].flatten(1).cpu() for owner in owners], 1)
        return engram.features(images, {}).flatten(1).cpu(), theirs

    for chosen in batches(len(some), EVALUATION_BATCH):
        mine, theirs = in_parts(some.images[chosen], size, both, reporter.check)
        own.append(mine)
        others.append(theirs)
    return torch.cat(own), torch.cat(others)


def probe_accuracy(features: Sequence[Tensor], labels: Sequence[Tensor]) -> float:
    """Of a ridge regression onto one-hot labels, fitted on the first and judged on the second of two parts."""
    given, asked = (one.double() for one in features)
    classes = int(max(one.max() for one in labels)) + 1
    mean, deviation = given.mean(0), given.std(0, unbiased=False).clamp_min(1e-6)
    phi = (given - mean) / deviation
    hot = F.one_hot(labels[0], classes).double()
    middle = hot.mean(0)
    gram = phi.T @ phi + RIDGE * len(phi) * torch.eye(phi.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, phi.T @ (hot - middle))
    right = (((asked - mean) / deviation) @ weights + middle).argmax(1) == labels[1]
    return float(right.double().mean())
