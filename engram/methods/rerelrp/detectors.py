"""Chain of detectors over relevance signatures, each telling one task from all later ones.

After ReReLRP (arXiv 2502.10789). No image and no signature of an earlier task has to be made anew: what speaks against
a task are the later tasks' own images, seen by the earlier task's sub-network when they were learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.errors import DamagedSnapshot
from engram.methods.rerelrp.forest import Forest, ForestSize
from engram.methods.rerelrp.signatures import Signatures
from engram.recognition.calibration import fitted


@dataclass(frozen=True)
class Detector:
    """A calibrated detector: the probability that an image is of one task, given that it is of none of the earlier
    ones.

    The forest's share p, as if one tree more had voted either way, becomes sigmoid(slope logit(p) + shift), after
    Platt (1999).
    """

    forest: Forest
    slope: Tensor
    """()."""
    shift: Tensor
    """()."""

    @classmethod
    def trained(cls, kept: Sequence[Signatures], task: int, growth: ForestSize, seed: int, reporter: Reporter) -> Self:
        """Tell a task from those after it, all tasks counting equally however many images they have.

        Raises
        ------
        Cancelled
        """
        learned = _gathered([piece.learned[task] for piece in kept[task:]])
        features = learned[0].shape[1]
        grown = reporter.journal.once("forest", lambda: Forest.grow(*learned, growth, seed, reporter).tensors())
        forest = Forest.from_tensors(grown, features)
        rows, own, weights = _gathered([piece.held_out[task] for piece in kept[task:]])
        slope, shift = _raising(_odds(forest, rows), own, weights)
        return cls(forest, slope, shift)

    def log_odds(self, signature: Tensor) -> Tensor:
        """(B,) from signatures (B, features)."""
        return self.slope * _odds(self.forest, signature) + self.shift


@dataclass(frozen=True)
class DetectorChain:
    """A chain of detectors for all tasks but the newest, which remains when all of them decline."""

    detectors: tuple[Detector, ...] = ()

    @classmethod
    def trained(cls, kept: Sequence[Signatures], growth: ForestSize, seed: int, reporter: Reporter) -> Self:
        """The chain over all tasks, oldest first, whose signatures are given.

        Raises
        ------
        Cancelled
        """
        detectors, count = [], len(kept) - 1
        for task in range(count):
            reporter.report("recognising", 0.5 + 0.5 * task / count)
            detectors.append(Detector.trained(kept, task, growth, seed + task, reporter))
        return cls(tuple(detectors))

    def log_probabilities(self, signatures: Sequence[Tensor], count: int) -> Tensor:
        """(B, T): log of p_i times the product of (1 - p_j) over j < i, with p = 1 for the newest task.

        Parameters
        ----------
        signatures
            For each detector (B, features of its task).
        count
            B, which no signature tells while there is only one task.
        """
        spent, logs = torch.zeros(count), []
        for detector, signature in zip(self.detectors, signatures, strict=True):
            odds = detector.log_odds(signature)  # (B,)
            logs.append(spent + F.logsigmoid(odds))
            spent = spent + F.logsigmoid(-odds)
        return torch.stack([*logs, spent], 1)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` takes."""
        tensors: dict[str, Tensor] = {}
        for number, detector in enumerate(self.detectors):
            tensors |= {f"detector.{number}.{name}": value for name, value in detector.forest.tensors().items()}
            tensors |= {f"detector.{number}.slope": detector.slope, f"detector.{number}.shift": detector.shift}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], features: Sequence[int]) -> Self:
        """A chain whose detectors look at signatures of so many features.

        Raises
        ------
        DamagedSnapshot
        """
        detectors = []
        for number, count in enumerate(features):
            prefix = f"detector.{number}."
            own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            try:
                detectors.append(Detector(Forest.from_tensors(own, count), own["slope"], own["shift"]))
            except KeyError as error:
                raise DamagedSnapshot(f"detector {number} lacks {error}") from error
        return cls(tuple(detectors))


def _gathered(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (N, F) of all parts, whether they are of the first (N,), and weights (N,) by which all parts count alike."""
    own = torch.cat([torch.full((len(part),), number == 0) for number, part in enumerate(parts)])
    total = sum(len(part) for part in parts) / len(parts)
    weights = torch.cat([torch.full((len(part),), total / max(1, len(part))) for part in parts])
    return torch.cat(list(parts)), own, weights


def _odds(forest: Forest, rows: Tensor) -> Tensor:
    """(B,): the log-odds that the trees give, never infinite."""
    trees = len(forest.roots)
    share = (forest.probability(rows).double() * trees + 1) / (trees + 2)
    return torch.logit(share).float()


def _raising(odds: Tensor, own: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and shift that make odds (M,) most likely where `own` (M,) tells the truth."""
    given, truth, counted = odds.double(), own.double(), weights.double()

    def loss(free: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(free[0].exp() * given + free[1], truth, weight=counted)

    slope, shift = fitted(torch.zeros(2, dtype=torch.float64), loss, len(given))  # log of the slope, shift
    return slope.exp().float(), shift.float()
