"""The context of learning one task: options, seed, reporter, device, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from engram.checkpointing.progress import Reporter
from engram.config.options import LearnOptions
from engram.errors import DeviceMissing, InputError
from engram.runtime import Placement

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
    recipe, learning
        The definition's numbers.
    placement
        What has images on the device; by default a new one.
    """

    options: LearnOptions
    seed: int
    reporter: Reporter
    device: torch.device
    optimiser: OptimiserFactory | None = None
    recipe: int = 3
    learning: int = 1
    placement: Placement | None = None

    def __post_init__(self) -> None:
        if self.placement is None:
            object.__setattr__(self, "placement", Placement(self.device))

    @property
    def placed(self) -> Placement:
        """The placement, which copies of this context share."""
        assert self.placement is not None, "it is made with the context"
        return self.placement

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


def check_device(device: torch.device | str) -> None:
    """Raise `InputError` for what names no device, or one that PyTorch cannot use here."""
    try:
        chosen = torch.device(device)
    except Exception as error:
        raise InputError(f"{device!r} names no device") from error
    if chosen.type == "meta":
        raise InputError("the device 'meta' holds no values, so that the model would be lost")
    if chosen.type == "cuda":
        if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]  # torch leaves it untyped
            raise InputError("this build of PyTorch has no CUDA")
        if (chosen.index or 0) >= (count := torch.cuda.device_count()):
            raise InputError(f"{device!r} is none of the GPUs that PyTorch finds here, of which there are {count}")
        return
    try:
        torch.zeros(1).to(chosen)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # the device is there, but full
    except Exception as error:  # what torch raises depends on the kind of device
        raise InputError(f"PyTorch cannot use {device!r} here: {first_line(error)}") from error


def choose_device(wanted: str, setting: str) -> torch.device:
    """The device that a setting names: `cpu`, `cuda`, or `auto`, which is a GPU where there is one.

    Raises
    ------
    DeviceMissing
        for `cuda` where there is none: better to stop than to be a hundred times slower unnoticed.
    """
    available = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "cuda" and not available:
        built = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        why = "finds no GPU here" if built else "is a build without CUDA"
        raise DeviceMissing(f"{setting} is cuda, and PyTorch {torch.__version__} {why}.")
    return torch.device("cuda" if available else "cpu")


def first_line(error: Exception) -> str:
    """What an error says, without the trace that some of PyTorch's carry."""
    return str(error).partition("\n")[0]
