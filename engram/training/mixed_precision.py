"""Mixed precision of training: passes in bfloat16 over weights in float32, and who can have it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from engram.config.definition import Definition
from engram.config.options import LearnOptions
from engram.errors import InvalidOptions, PrecisionMissing
from engram.runtime import has_bf16


def mixed(device: torch.device, options: LearnOptions) -> AbstractContextManager[object]:
    """What the forward pass of a training step is computed within, as the options ask for it."""
    return torch.autocast(device.type, torch.bfloat16) if options.mixed_precision else nullcontext()


def expect_mixable(definition: Definition, options: LearnOptions, device: torch.device | None = None) -> None:
    """Refuse mixed precision where it cannot be.

    Parameters
    ----------
    device
        Where it is learned, if that is known.

    Raises
    ------
    InvalidOptions
        Some part of learning would know nothing of it.
    PrecisionMissing
        The device would compute the same slowly, and to other bytes.
    """
    if not options.mixed_precision:
        return
    if not definition.staged:
        raise InvalidOptions("mixed_precision needs answers in stages: eidetic, recipe 3, not `reads: all`")
    if definition.backbone == "none":
        raise InvalidOptions("mixed_precision is for networks that are trained, and backbone none has none")
    if device is not None and not has_bf16(device):
        raise PrecisionMissing(f"mixed_precision computes in bf16, for which this {device.type} has no instructions")
