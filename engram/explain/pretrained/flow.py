"""Flow of one forward: operations, normalised and rectified layers, those that read the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

RECTIFIERS = frozenset({"relu", "relu_", "relu6", "hardtanh", "hardtanh_"})
"""Functions that rectify; whether those with bounds begin at zero is asked of their arguments."""
_ASKS = frozenset({"__get__", "dim", "size", "numel"})
"""Functions that ask about a tensor, and compute nothing."""


@dataclass(frozen=True)
class Flow:
    """What is seen of a network while it computes; modules are named by their paths."""

    operations: frozenset[str]
    """Names of the ATen operators that ran."""
    normalised: Mapping[str, str]
    """For each batch normalisation that reads a convolution, and alone does so, that convolution."""
    loose: tuple[str, ...]
    """Batch normalisations that read anything else, or read it more than once."""
    first: tuple[str, ...]
    """Convolutions that read the image."""
    unrectified: tuple[str, ...]
    """Convolutions whose output, once normalised, is not rectified next."""
    grouped: tuple[str, ...]
    """Convolutions whose units read a part of the channels, such as one."""


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """A list of the names of all operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What the operator gives."""
        self.names.add(func._overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class _Trace(TorchFunctionMode):
    """A trace of convolutions, normalisations and rectifiers, in this thread and without hooks in the module."""

    def __init__(self, module: nn.Module, image: Tensor) -> None:
        super().__init__()
        # What a layer is given as weights, and as running mean, says which layer it is.
        self._convolutions = {
            id(one.weight): name for name, one in module.named_modules() if isinstance(one, nn.Conv2d)
        }
        self._norms = {
            id(one.running_mean): name
            for name, one in module.named_modules()
            if isinstance(one, nn.BatchNorm2d) and one.running_mean is not None
        }
        self._image = image
        self._alive: list[Tensor] = []  # an identity is one tensor's only as long as that lives
        self._made_by: dict[int, str] = {}
        self._rectifiable: dict[int, str] = {}
        self.calls: Counter[str] = Counter()
        self.consumed: Counter[str] = Counter()
        self.reads: dict[str, str | None] = {}
        self.first: list[str] = []
        self.rectified: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What the function gives."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _ASKS:
            return func(*args, **kwargs)
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        for one in tensors:
            if id(one) in self._made_by:
                self.consumed[self._made_by[id(one)]] += 1
        if name in RECTIFIERS and tensors and id(tensors[0]) in self._rectifiable and _from_zero(name, args, kwargs):
            self.rectified.add(self._rectifiable[id(tensors[0])])
        found = func(*args, **kwargs)
        if tensors and found is tensors[0]:
            self._rectifiable.pop(id(found), None)  # changed in place, it is another value
        if func is F.conv2d and id(args[1]) in self._convolutions:
            self._convolved(self._convolutions[id(args[1])], args[0], found)
        elif func is F.batch_norm and id(args[1]) in self._norms:
            self._normalised(self._norms[id(args[1])], args[0], found)
        elif name == "pad" and args[0] is self._image:
            self._image = self._kept(found)  # padded by hand, it is still the image
        return found

    def _convolved(self, name: str, given: Tensor, found: Tensor) -> None:
        self.calls[name] += 1
        self._made_by[id(self._kept(found))] = name
        self._rectifiable[id(found)] = name
        if given is self._image:
            self.first.append(name)

    def _normalised(self, name: str, given: Tensor, found: Tensor) -> None:
        self.calls[name] += 1
        self.reads[name] = self._made_by.get(id(given))
        if id(given) in self._made_by:
            self._rectifiable[id(self._kept(found))] = self._made_by[id(given)]

    def _kept(self, tensor: Tensor) -> Tensor:
        self._alive.append(tensor)
        return tensor


def _from_zero(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return "hardtanh" not in name or kwargs.get("min_val", args[1] if len(args) > 1 else -1.0) == 0


@torch.no_grad()
def flow_of(module: nn.Module, size: int, modes: Sequence[TorchFunctionMode] = ()) -> Flow:
    """What a network does with an image of this side; the network, in eval mode, is only read.

    Parameters
    ----------
    modes
        Within which it computes.
    """
    image = torch.zeros(1, 3, size, size, device=next(module.parameters()).device)
    trace, operators = _Trace(module, image), _Operators()
    with ExitStack() as within, operators:
        for mode in (*modes, trace):
            within.enter_context(cast("AbstractContextManager[None]", mode))
        module(image)
    alone = {
        norm: conv
        for norm, conv in trace.reads.items()
        if conv is not None and trace.calls[norm] == trace.calls[conv] == trace.consumed[conv] == 1
    }
    convolutions = {name: one for name, one in module.named_modules() if isinstance(one, nn.Conv2d)}
    ran = [name for name in convolutions if trace.calls[name]]
    return Flow(
        operations=frozenset(operators.names),
        normalised=alone,
        loose=tuple(norm for norm in trace.reads if norm not in alone),
        first=tuple(trace.first),
        unrectified=tuple(name for name in ran if name not in trace.rectified),
        grouped=tuple(name for name in ran if convolutions[name].groups > 1),
    )
