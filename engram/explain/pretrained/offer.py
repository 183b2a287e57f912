"""Table of what fits a network: propagation of relevance, or gradients alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from engram.explain.pretrained.flow import Flow, flow_of
from engram.explain.rules import COMPOSITES, CONSERVING, DEFAULT_COMPOSITE
from engram.nn.pretrained.modes import DefinedAttention

PATHS = ("integrated_gradients", "smooth_gradients")
"""Composites that average gradients, along a path to the image or around it. They fit every network."""

PROPAGATED = frozenset(
    {"convolution", "addmm", "mm", "linear", "native_batch_norm"}
    | {"relu", "relu_", "hardtanh", "hardtanh_"}
    | {"max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "mean"}
    | {"add", "add_", "cat", "constant_pad_nd"}
    | {"view", "_unsafe_view", "reshape", "transpose", "permute", "t", "split", "split_with_sizes", "select", "slice"}
    | {"unbind", "expand", "unsqueeze", "squeeze", "clone", "copy_", "alias", "detach", "empty"}
)
"""Operators that relevance has a rule for, or passes through as it is; of a batch normalisation, folded."""

UNSUITED: Mapping[str, str] = {
    "_safe_softmax": "attention",
    "_softmax": "attention",
    "bmm": "attention",
    "gelu": "GELU",
    "silu": "SiLU",
    "silu_": "SiLU",
    "hardswish": "hard swish",
    "hardswish_": "hard swish",
    "native_layer_norm": "layer normalisation",
    "native_group_norm": "group normalisation",
    "sigmoid": "gates",
    "sigmoid_": "gates",
    "hardsigmoid": "gates",
    "hardsigmoid_": "gates",
    "mul": "gates",
    "mul_": "gates",
}
"""What operators without a rule are called; others are named as they are."""

DEFAULT_OF_GRADIENTS = "integrated_gradients"


@dataclass(frozen=True)
class Offer:
    """What heatmaps through a network are made by."""

    default: str
    composites: tuple[str, ...]
    conserving: tuple[str, ...]
    """Those of them whose relevance sums to what is explained, a path's up to its steps."""
    why: str
    """A sentence for people."""

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "default": self.default,
            "composites": list(self.composites),
            "conserving": list(self.conserving),
            "why": self.why,
        }


def explains(module: nn.Module, size: int) -> Offer:
    """What heatmaps through a network in eval mode are made by, given images of this side; one forward tells."""
    return offer_of(flow_of(module, size, [DefinedAttention()]))


def offer_of(flow: Flow) -> Offer:
    """What fits the operations of a network."""
    unsuited = sorted({UNSUITED.get(name, name) for name in flow.operations - PROPAGATED})
    if flow.loose:
        unsuited.append("batch normalisation that follows no convolution")
    if unsuited:
        composites = ("gradient_times_input", *PATHS)
        why = f"relevance has no rule here for {_listed(unsuited)}; gradients fit every network"
        return Offer(DEFAULT_OF_GRADIENTS, composites, PATHS[:1], why)
    why = "relevance has a rule for every operation; batch normalisation is folded into convolutions"
    default = DEFAULT_COMPOSITE
    if flow.grouped:
        # On EfficientNet-Lite0 it pointed no better than blobs drawn at random, and integrated gradients did.
        default = DEFAULT_OF_GRADIENTS
        why += "; where these are grouped it says little about classes, so gradients come first"
    return Offer(default, (*COMPOSITES, *PATHS), (*CONSERVING, *PATHS[:1]), why)


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
