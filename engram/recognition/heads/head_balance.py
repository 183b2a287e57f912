"""Balance of a head's classes: the offset that decides between them, and how often each is expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from engram.data.class_balance import image_weights, log_prior
from engram.data.examples import Examples
from engram.recognition import calibration
from engram.recognition.calibration import minimised

PULL = 0.05
"""What the square of an offset costs, against the mean cross-entropy."""

MOST_COST = 0.03
"""Recall that an offset may cost a class, as a fraction."""

MEASURABLE = 20
"""Held-out images of a class from which on its recall is told well enough to be held to."""

STEPS = 20
"""Shares of an offset that are tried."""


@dataclass(frozen=True)
class HeadBalance:
    """Offsets of a head's logits for classes of unequal size.

    A head of which all classes count alike answers by its largest logit. Its few images of a small class it knows by
    heart, though, and is less sure of others: the offset makes up for that. The answer's probability is the one for
    images that come as often as those that were uploaded.
    """

    offset: Tensor
    """(classes,): added to the logits; the largest sum is the answer."""
    log_prior: Tensor
    """(classes,): the log of each class's share of the images; added to the log-probabilities."""

    @classmethod
    def fitted(cls, logits: Tensor, held_out: Examples, train: Examples) -> Self | None:
        """Fitted to held-out logits (M, classes), every class counting alike; None if `train` is balanced already."""
        prior = log_prior(train)
        if prior is None:
            return None
        given, labels = logits.double(), held_out.labels
        counted = image_weights(labels, torch.ones(len(prior)))  # (M,)

        def loss(offset: Tensor) -> Tensor:
            each = cross_entropy(given + offset, labels, reduction="none")
            return (counted * each).mean() + PULL * offset.square().sum()

        offset = minimised(torch.zeros(len(prior), dtype=torch.float64), loss)
        return cls(_harmless(offset, given, labels).float(), prior)

    def decisive(self, logits: Tensor) -> Tensor:
        """(B, classes): logits whose largest is the answer."""
        return logits + self.offset

    def temperature(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(): what divides the decisive logits (M, classes) so that the probabilities fit held-out labels (M,)."""
        counted = image_weights(labels, self.log_prior.exp()).float()
        grid = torch.logspace(-1, 1, 41)
        losses = [counted @ cross_entropy(logits / value + self.log_prior, labels, reduction="none") for value in grid]
        return grid[torch.stack(losses).argmin()]


def _harmless(offset: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """As much of an offset (classes,) as costs no class of which enough images were held out more than `MOST_COST`.

    One odd image of a small class could otherwise draw most of a large one to it.
    """
    counts = torch.bincount(labels, minlength=len(offset))
    before = _recalls(logits, labels, counts)
    for step in range(STEPS):
        part = offset * (1 - step / STEPS)
        lost = before - _recalls(logits + part, labels, counts)
        if bool((lost[counts >= MEASURABLE] <= MOST_COST).all()):
            return part
    return torch.zeros_like(offset)


def _recalls(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """(classes,) float64."""
    right = torch.bincount(labels[logits.argmax(1) == labels], minlength=len(counts))
    recalls: Tensor = right / counts.clamp_min(1).double()
    return recalls


def calibrated(
    logits: Tensor, held_out: Examples, train: Examples, recipe: int
) -> tuple[HeadBalance | None, Tensor, Tensor]:
    """The balance of a head, its decisive logits (M, classes) for the held-out images, and its temperature ().

    By the first recipe no head has a balance.
    """
    balance = HeadBalance.fitted(logits, held_out, train) if recipe > 1 else None
    found = decisive(balance, logits)
    return balance, found, fitted_temperature(found, held_out.labels, balance)


def fitted_temperature(logits: Tensor, labels: Tensor, balance: HeadBalance | None) -> Tensor:
    """(): what divides decisive logits (M, classes) so that probabilities fit held-out labels (M,)."""
    return calibration.fitted_temperature(logits, labels) if balance is None else balance.temperature(logits, labels)


def decisive(balance: HeadBalance | None, logits: Tensor) -> Tensor:
    """(B, classes): logits whose largest is the answer, whether a head has a balance or not."""
    return logits if balance is None else balance.decisive(logits)


def within_task(logits: Tensor, temperature: Tensor, balance: HeadBalance | None) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, classes) of a task's classes: those that decide, and those that are told."""
    deciding = torch.log_softmax(decisive(balance, logits) / temperature, 1)
    if balance is None:
        return deciding, deciding
    return deciding, torch.log_softmax(deciding + balance.log_prior, 1)
