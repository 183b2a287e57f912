"""The context of learning one task: options, seed, reporter, device, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from engram.checkpointing.progress import Reporter
from engram.config.options import LearnOptions

OptimiserFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
"""Makes the optimiser of one training phase from the new engram's parameters, which are all it is ever handed."""


@dataclass(frozen=True)
class LearnContext:
    """How one task is learned, where, and who is told of it.

    Parameters
    ----------
    options
        As the user gave them.
    seed
        Of the first weights, the order of images, and every other random choice.
    reporter
        Told of progress, and asked whether to stop, at every step; it also keeps the journal of finished work.
    device
        Where the new parts compute.
    optimiser
        Makes the optimiser; by default as the options say.
    """

    options: LearnOptions
    seed: int
    reporter: Reporter
    device: torch.device
    optimiser: OptimiserFactory | None = None

    def generator(self) -> torch.Generator:
        """A new generator of the context's seed."""
        return torch.Generator().manual_seed(self.seed)


class WithContext:
    """A learner that is given a context, and its parts under names of their own."""

    context: LearnContext

    @property
    def options(self) -> LearnOptions:
        """How the task is learned."""
        return self.context.options

    @property
    def reporter(self) -> Reporter:
        """Told of every step."""
        return self.context.reporter

    @property
    def device(self) -> torch.device:
        """Where the new parts compute."""
        return self.context.device
