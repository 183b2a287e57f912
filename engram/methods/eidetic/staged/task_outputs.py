"""What one task's network sees in images."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.context import LearnContext
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.nn.batches import at_once, in_parts
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
    size = at_once(engram.layout, engram.reach, EVALUATION_BATCH)

    def answered(part: Tensor) -> tuple[Tensor, ...]:
        return network.answer(engram.task, pixels(part))

    for chosen in batches(len(examples), EVALUATION_BATCH):
        seen, given = in_parts(context.placed.rows(examples.images, chosen), size, answered, context.reporter.check)
        features.append(seen.cpu())
        logits.append(given.cpu())
    return torch.cat(features), torch.cat(logits)
