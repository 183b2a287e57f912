"""Training state: a module in training, and all that its next step depends on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from engram.checkpointing.curves import EpochFigures
from engram.checkpointing.pytree import Tree
from engram.data.class_balance import balanced_order
from engram.data.examples import batches


@dataclass
class TrainingState:
    """A module in training, and all that its next step depends on.

    Parameters
    ----------
    generator
        What the order of the images, and all else that is random in a step, is drawn from.
    """

    module: nn.Module
    optimiser: Optimizer
    generator: torch.Generator
    epoch: int = 0
    """Epochs that are done."""
    step: int = 0
    """Steps that are done."""
    loss: float = 0.0
    """The running mean of the steps' losses."""
    curve: list[EpochFigures] = field(default_factory=list)
    """The epochs that are done."""
    _within: int = 0
    """Steps of this epoch that are done."""
    _begun: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.uint8))
    """The generator at the beginning of this epoch, from which the order of its images is drawn."""

    def batches(self, count: int, size: int, labels: Tensor | None = None, most: int | None = None) -> Iterator[Tensor]:
        """Those of this epoch that are not done yet, as `batches` gives them.

        Parameters
        ----------
        labels
            (count,): if they are given, every class is drawn about as often.
        most
            Batches of an epoch at most.
        """
        if not self._within:
            self._begun = self.generator.get_state()
            yield from islice(self._drawn(count, size, labels), most)
            return
        now = self.generator.get_state()
        self.generator.set_state(self._begun)
        order = list(islice(self._drawn(count, size, labels), most))
        self.generator.set_state(now)
        yield from order[self._within :]

    def _drawn(self, count: int, size: int, labels: Tensor | None) -> Iterator[Tensor]:
        if labels is None:
            return batches(count, size, self.generator)
        order = balanced_order(labels, self.generator)
        return (order[part] for part in batches(count, size))

    def stepped(self, loss: float) -> None:
        """A step is done."""
        self.loss = loss if self.step == 0 else 0.9 * self.loss + 0.1 * loss
        self.step += 1
        self._within += 1

    def turn(self, held_out_loss: float | None = None, held_out_accuracy: float | None = None) -> None:
        """The epoch is done, after which so much was measured on held-out images."""
        self.epoch += 1
        self.curve.append((self.epoch, self.loss, held_out_loss, held_out_accuracy))
        self._within = 0

    def state(self) -> dict[str, Tree]:
        """What `restore` takes."""
        return {
            "counters": (self.epoch, self.step, self._within, self.loss),
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "begun": self._begun,
            "curve": list(self.curve),
        }

    def restore(self, state: dict[str, Tree]) -> None:
        """Go on from where another state of the same run stood."""
        self.epoch, self.step, self._within, self.loss = state["counters"]
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self._begun = state["begun"]
        self.curve = state["curve"]
