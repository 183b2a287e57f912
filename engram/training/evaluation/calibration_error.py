"""Expected calibration error of answers."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 15


def calibration_error(probabilities: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017): the gap between confidence and accuracy, over equal bins.

    Parameters
    ----------
    probabilities
        (N,) of the predicted labels.
    right
        (N,) whether the predictions were right.
    """
    probabilities, right = probabilities.double(), right.double()
    which = (probabilities * bins).long().clamp(0, bins - 1)  # (N,)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, which, probabilities - right)
    return float(gaps.abs().sum() / len(probabilities))
