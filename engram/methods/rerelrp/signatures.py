"""Relevance signatures: the relevance of the few units that matter most to a task.

After ReReLRP (arXiv 2502.10789): exemplars are chosen by herding, and of each only the values of largest mean relevance
are kept, never the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

from torch import Tensor

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.explain.unit_relevance import normalised


def most_relevant(relevance: Tensor, count: int) -> Tensor:
    """Indices (at most `count`,), ascending, of the columns of largest mean relevance (N, units); ties to the first."""
    order = relevance.double().mean(0).sort(descending=True, stable=True).indices
    return order[:count].sort().values


def head_relevance(features: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
    """The relevance (B, F) of what a head reads for the answer it gives: a_i w_ic for its class c, normalised.

    This is the epsilon rule (with epsilon 0 and the bias left out) at the last layer, and needs no backward pass.

    Parameters
    ----------
    features
        (B, F).
    weight
        (classes, F) of the head.
    logits
        (B, classes), of which the largest is explained.
    """
    return normalised(features * weight[logits.argmax(1)])


@dataclass(frozen=True)
class Signatures:
    """The kept relevance signatures of the t-th task's images: those in its own sub-network and in those of earlier
    tasks.

    Parameters
    ----------
    learned
        For each task j <= t: (exemplars, signature of j) float32, what detectors are grown from.
    held_out
        For each task j <= t: (held-out images, signature of j) float32, what they are calibrated by.
    """

    learned: tuple[Tensor, ...]
    held_out: tuple[Tensor, ...]

    def dump(self) -> bytes:
        """The signatures as bytes."""
        tensors = {f"learned.{number}": rows for number, rows in enumerate(self.learned)}
        tensors |= {f"judged.{number}": rows for number, rows in enumerate(self.held_out)}
        return pack("signatures", {"subnetworks": len(self.learned)}, tensors)

    @classmethod
    def load(cls, data: bytes) -> Self:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        about, tensors = unpack("signatures", data)
        try:
            count = cast(int, about["subnetworks"])
            learned, held_out = (tuple(tensors[f"{kind}.{n}"] for n in range(count)) for kind in ("learned", "judged"))
        except (KeyError, TypeError) as error:
            raise DamagedSnapshot(f"the signatures lack {error}") from error
        return cls(learned, held_out)
