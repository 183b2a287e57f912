"""What one task's network sees in images."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.context import LearnContext
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.nn.network import Engram, Network, pixels


@torch.no_grad()
def features_and_logits(
    network: Network, engram: Engram, examples: Examples, context: LearnContext
) -> tuple[Tensor, Tensor]:
    """Features (N, F_t) and logits (N, classes) of one task's network alone, on the CPU.

    Raises
    ------
    Cancelled
    """
    features, logits = [], []
    for chosen in batches(len(examples), EVALUATION_BATCH):
        context.reporter.check()
        seen, given = network.answer(engram.task, pixels(examples.images[chosen].to(context.device)))
        features.append(seen.cpu())
        logits.append(given.cpu())
    return torch.cat(features), torch.cat(logits)
