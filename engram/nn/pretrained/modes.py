"""Modes of PyTorch for one thread: plain attention, own draws while building, counted operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from engram.errors import InvalidBackbone

_DRAWS = {
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.bernoulli_,
    Tensor.exponential_,
    Tensor.random_,
    torch.normal,
    torch.rand,
    torch.randint,
    torch.randn,
    torch.randperm,
}
"""What takes a generator, or draws from the process's own."""


class DefinedAttention(TorchFunctionMode):
    """Attention as its definition has it, softmax(q k^T / sqrt(d)) v by matrix products, in this thread alone.

    PyTorch's choice among kernels is a setting of the process, which threads would undo for each other. The shortcut of
    `nn.MultiheadAttention` is not taken while a mode is active, so all attention comes here.
    """

    met = False
    """Whether there was any."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The attention asked for, or whatever else the function gives."""
        if func is F.scaled_dot_product_attention:
            self.met = True
            return _attention(*args, **(kwargs or {}))
        if func is F.multi_head_attention_forward:
            # What it calls by itself would no longer come here.
            self.met = True
            return _several_heads(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    found: Tensor = torch.ops.aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )[0]
    return found


def _several_heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    width: int,
    heads: int,
    in_weight: Tensor | None,
    in_bias: Tensor | None,
    *others: Any,
    **settings: Any,
) -> tuple[Tensor, None]:
    """What `nn.MultiheadAttention` gives of tokens (N, B, width), without weights of attention."""
    bias_key, bias_value, zero, _, out_weight, out_bias = others[:6]
    plain = query is key and key is value and in_weight is not None and bias_key is None and bias_value is None
    masked = settings.get("attn_mask") is not None or settings.get("key_padding_mask") is not None
    if not plain or zero or masked or settings.get("need_weights", True) or settings.get("training"):
        raise InvalidBackbone("nn.MultiheadAttention is taken without masks, weights, keys or values of its own")
    assert in_weight is not None, "it is not, where the attention is plain"
    count, batch = query.shape[:2]
    packed = F.linear(query, in_weight, in_bias).view(count, batch, 3, heads, width // heads)
    projected = packed.permute(2, 1, 3, 0, 4).contiguous()  # (3, B, heads, N, width / heads)
    seen = _attention(projected[0], projected[1], projected[2])  # (B, heads, N, width / heads)
    joined = seen.permute(2, 0, 1, 3).reshape(count * batch, width)
    return F.linear(joined, out_weight, out_bias).view(count, batch, width), None


class OwnDraws(TorchFunctionMode):
    """Networks are built whose first weights are replaced: what is drawn all the same moves no generator but its own.

    The drawing is not left out altogether: PyTorch's truncated normal draws until all is within its bounds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What the function gives; of one of `nn.init`, the tensor as it is."""
        given = dict(kwargs or {})
        if getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else given["tensor"]
        if func in _DRAWS and given.get("generator") is None:
            given["generator"] = self._generator
        return func(*args, **given)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """A count of the multiply-adds of matrix products and convolutions, of tensors on any device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What the operator gives."""
        found = func(*args, **(kwargs or {}))
        formula: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.count += formula(*args, **(kwargs or {}), out_val=found) // 2
        return found
