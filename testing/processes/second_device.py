"""Second device made of the processor, which refuses to compute with what lies elsewhere.

What a GPU refuses shows on it without one: an operation on values of two devices. It is PyTorch's way to write a
backend in Python (experimental, PyTorch 2.9 and later), and counts for the whole process, so that tests of it run in
one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "elsewhere"

_COPYING = frozenset({"aten._copy_from.default", "aten._copy_from_and_resize.default"})
_OWN = """
detach alias expand permute transpose.int slice.Tensor select.int unsqueeze squeeze squeeze.dim squeeze.dims
split.Tensor split_with_sizes unbind.int t unfold abs convolution_overrideable
"""
"""Operations that PyTorch would do by itself on a handle of values that it does not know."""

_libraries: list[torch.library.Library] = []

sent: list[tuple[torch.dtype, int]] = []
"""Type and bytes of each copy from the processor so far."""


class _Elsewhere(Tensor):
    """Tensor whose values are another's, on the processor, that nobody else knows."""

    behind: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as torch's own classes

    @staticmethod
    def of(values: Tensor) -> _Elsewhere:
        with torch.inference_mode(False):  # a view of what is there belongs to no mode
            made = torch._C._acc.create_empty_tensor(tuple(values.shape), values.dtype)
        made.__class__ = _Elsewhere
        assert isinstance(made, _Elsewhere)
        made.behind = values
        return made


class _Module(_DummyBackendModule):
    """What PyTorch asks of a kind of device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return []


def register() -> torch.device:
    """Have this process know the device; to be called once."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    library: Any = torch.library.Library  # which torch leaves untyped
    anything, operations = library("_", "IMPL"), library("aten", "IMPL")
    anything.fallback(_run, "PrivateUse1")
    for name in _OWN.split():
        operation, _, overload = name.partition(".")
        chosen = getattr(getattr(torch.ops.aten, operation), overload or "default")
        operations.impl(name, partial(_run, chosen), "PrivateUse1")
    for name in ("view", "_unsafe_view"):
        operations.impl(name, _viewed, "PrivateUse1")
    operations.impl("_reshape_alias", lambda given, size, _: _viewed(given, size), "PrivateUse1")
    _libraries.extend((anything, operations))  # which end what they have registered
    return torch.device(NAME)


def _viewed(given: _Elsewhere, size: Sequence[int]) -> _Elsewhere:
    # The handle says nothing of the order in memory, so that a view may take a copy.
    return _Elsewhere.of(given.behind.reshape(size))


def _run(operation: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Compute with the values, where all of them lie here; numbers without dimensions may lie anywhere."""
    name = str(operation)
    tensors = [one for one in tree_leaves((given, named)) if isinstance(one, Tensor)]
    if name in _COPYING:
        source, into = given[:2]
        if not isinstance(source, _Elsewhere):
            sent.append((source.dtype, source.nbytes))
        _values(into).copy_(_values(source))
        return into
    if strange := [one for one in tensors if not isinstance(one, _Elsewhere) and one.ndim]:
        raise RuntimeError(f"{name} is given values on {strange[0].device} among those on {NAME}")
    device = named.get("device")
    if device is not None:
        named["device"] = torch.device("cpu")
    named.pop("pin_memory", None)
    if name == "aten.convolution_overrideable.default":
        operation = torch.ops.aten.convolution.default
    found = operation(*tree_map(_values, given), **tree_map(_values, named))
    if device is not None and torch.device(device).type != NAME:
        return found
    known = {id(one.behind): one for one in tensors if isinstance(one, _Elsewhere)}  # what is changed in place

    def handled(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        return known[id(one)] if id(one) in known else _Elsewhere.of(one)

    return tree_map(handled, found)


def _values(one: Any) -> Any:
    return one.behind if isinstance(one, _Elsewhere) else one
