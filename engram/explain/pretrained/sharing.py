"""Rules of relevance for functions that are no modules: sums, averages and rectifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from engram.explain.pretrained.flow import RECTIFIERS
from engram.explain.rules import SharedSum

_SUMS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})
_AVERAGES = frozenset({"mean", "avg_pool2d", "adaptive_avg_pool2d"})


class RelevanceFunctions(TorchFunctionMode):
    """Within it the backward pass of what is computed carries relevance through functions; only in this thread.

    Sums divide it by magnitude, and so do averages among what they average; rectifiers pass it on. Modules have
    rules of their own.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What the function gives."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _SUMS and not kwargs and _of_one_shape(args):
            return SharedSum.apply(*args)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        if name in RECTIFIERS and isinstance(args[0], Tensor):
            return _Passed.apply(args[0], partial(func, **kwargs), *args[1:])  # type: ignore[no-untyped-call]
        if name in _AVERAGES and isinstance(args[0], Tensor):
            return _Averaged.apply(args[0], partial(func, **kwargs), *args[1:])  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


class GuidedRectifiers(TorchFunctionMode):
    """Within it rectifiers carry back only what is positive (Springenberg et al. 2015); only in this thread."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What the function gives."""
        found = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in RECTIFIERS and found.requires_grad:
            found.register_hook(lambda gradient: gradient.clamp_min(0))
        return found


class _Passed(torch.autograd.Function):
    """A rectifier that relevance passes: what is not active has none to give, and what is cut off gives all of it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rectified: Callable[..., Tensor], *others: Any) -> Tensor:
        ctx.count = len(others)
        return rectified(values.clone(), *others)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return grad_outputs[0], None, *[None] * ctx.count


class _Averaged(torch.autograd.Function):
    """An average whose relevance is divided by the magnitude of what is averaged."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, average: Callable[..., Tensor], *others: Any) -> Tensor:
        ctx.save_for_backward(values)
        ctx.average, ctx.others = average, others
        return average(values, *others)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (values,) = ctx.saved_tensors
        shared = shared_by_magnitude(values, lambda given: ctx.average(given, *ctx.others), grad_outputs[0])
        return shared, None, *[None] * len(ctx.others)


def shared_by_magnitude(values: Tensor, average: Callable[[Tensor], Tensor], relevance: Tensor) -> Tensor:
    """What of the relevance of averages belongs to each value: it is conserved, and cannot explode where signs cancel.

    Where all values of an average are zero, they share alike.
    """
    parts = values.detach().abs().requires_grad_(True)
    with torch.enable_grad():
        whole = average(parts)
    (alike,) = torch.autograd.grad(whole, parts, torch.where(whole > 0, 0.0, relevance), retain_graph=True)
    due = torch.where(whole > 0, relevance / whole.clamp_min(torch.finfo(whole.dtype).tiny), 0.0)
    (shared,) = torch.autograd.grad(whole, parts, due)
    return parts.detach() * shared + alike


def _of_one_shape(args: Sequence[Any]) -> bool:
    return len(args) == 2 and all(isinstance(one, Tensor) for one in args) and args[0].shape == args[1].shape
