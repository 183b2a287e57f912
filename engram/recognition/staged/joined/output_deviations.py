"""Deviations of a network's own outputs above what images of the known classes show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engram.nn.commons.outputs import Outputs
from engram.recognition.staged.joined.joined_totals import JoinedTotals
from engram.recognition.staged.totals import Totals

LEAST_SPREAD = 1e-3
"""Share of the mean deviation of all outputs that each is taken to have at least."""

AT_ONCE = 2**22
"""Outputs of images that are looked at together, so that a network of tens of thousands takes no gigabytes."""


@dataclass(frozen=True)
class OutputDeviations:
    """What a network that knows many classes sees in an image, that it hardly sees in images of the known classes.

    Each output is taken in deviations from its mean over the known classes, and the largest of them tell: the log of
    the sum of their exponentials. Mean and deviation follow from the sums of all tasks, every class counting alike.
    """

    centres: Tensor
    """(K,): the mean of each output."""
    scales: Tensor
    """(K,): its standard deviation."""

    @classmethod
    def of(cls, totals: JoinedTotals, outputs: Outputs) -> Self:
        """Of all classes in the totals."""
        own = totals.each[outputs.part]
        width, classes = len(outputs.scales), len(own.counts)
        turned = outputs.weight.double() / outputs.scales.double()  # (K, F)
        second = own.second[:width, :width].double().mul_(own.step**2 / classes)  # classes count alike in it
        centres = turned @ own.means()[:width].mean(1)
        scales = (((turned @ second) * turned).sum(1) - centres.square()).clamp_min(0).sqrt()
        held = scales.clamp_min(max(LEAST_SPREAD * float(scales.mean()), 1e-12))
        return cls(centres.float().contiguous(), held.float().contiguous())

    def unusual(self, given: Tensor) -> Tensor:
        """(B,), of outputs (B, K)."""
        return ((given - self.centres) / self.scales).logsumexp(1)

    def left_out(self, totals: JoinedTotals, outputs: Outputs, features: Tensor, labels: Tensor) -> Tensor:
        """(n,): as `unusual`, each image as if the totals had not learned from it.

        Parameters
        ----------
        totals
            What the deviations are of, in which the images' task is the last one.
        features
            (n, F of all commons).
        labels
            (n,): among the task's own classes.
        """
        every: Totals = totals.each[outputs.part]
        own, size = every.tasks[-1], len(outputs.scales)
        means = outputs.of((own.moments[:size] * every.step / own.counts).T.float())  # (classes, K)
        parts = (torch.split(one, max(1, AT_ONCE // len(means[0]))) for one in (features, labels))
        return torch.cat(
            [self._without(every, means, outputs(some), theirs) for some, theirs in zip(*parts, strict=True)]
        )

    def _without(self, totals: Totals, means: Tensor, given: Tensor, labels: Tensor) -> Tensor:
        """(n,): as `left_out`, of outputs (n, K), whose means in each class of the last task are (classes, K)."""
        own, classes = totals.tasks[-1], len(totals.counts)
        apart, count = given - means[labels], own.counts[labels][:, None].float()
        step = apart / (count - 1).clamp_min(1)  # by which the class's mean lies farther off without the image (n, K)
        share = len(own.counts) / classes / max(1.0, float(own.counts.sum()) - 1)
        within = -share * count * apart * step
        between = ((1 - 1 / classes) * step - 2 * (means[labels] - self.centres)) * step / classes
        variances = self.scales.square() + within + between
        held = variances.clamp_min(0).sqrt().maximum(LEAST_SPREAD * self.scales)
        found: Tensor = ((given - self.centres + step / classes) / held).logsumexp(1)
        return found
