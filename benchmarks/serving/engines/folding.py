"""Graphs with batch normalisations folded into convolutions, whose weights are laid out channels last."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


def folded(graph: GraphModule) -> GraphModule:
    """The graph, changed in place."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and "batch_norm" in str(node.target):
            _fold(graph, node)
    for node in graph.graph.nodes:
        if _is_convolution(node):
            _last(graph, node)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    return graph


def _is_convolution(node: Any) -> bool:
    return isinstance(node, Node) and node.target is torch.ops.aten.convolution.default


def _constant(graph: GraphModule, node: Any) -> Tensor:
    assert isinstance(node, Node), "weights are constants of a graph"
    assert node.op == "get_attr", "weights are constants of a graph"
    found: Tensor = getattr(graph, str(node.target))
    return found


def _kept(graph: GraphModule, before: Node, name: str, value: Tensor) -> Node:
    """A new constant in front of a node."""
    graph.register_buffer(name, value)
    with graph.graph.inserting_before(before):
        return graph.graph.get_attr(name)


def _fold(graph: GraphModule, node: Node) -> None:
    source = node.args[0]
    if not _is_convolution(source) or len(source.users) > 1:  # type: ignore[union-attr]  # it is a node
        return
    assert isinstance(source, Node)
    gamma, beta, mean, variance = (_constant(graph, part).double() for part in node.args[1:5])
    eps = float(node.args[-1] if isinstance(node.args[-1], float) else node.args[-2])  # type: ignore[arg-type]
    scale = gamma / (variance + eps).sqrt()
    weight = _constant(graph, source.args[1]).double() * scale[:, None, None, None]
    bias = 0.0 if source.args[2] is None else _constant(graph, source.args[2]).double()
    shifted = beta + (bias - mean) * scale
    arguments = list(source.args)
    arguments[1] = _kept(graph, source, f"{source.name}_folded", weight.float())
    arguments[2] = _kept(graph, source, f"{source.name}_shift", shifted.float())
    source.args = tuple(arguments)
    for user in list(node.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(source)
        else:
            node.replace_all_uses_with(source)


def _last(graph: GraphModule, node: Node) -> None:
    weight = _constant(graph, node.args[1]).contiguous(memory_format=torch.channels_last)
    arguments = list(node.args)
    arguments[1] = _kept(graph, node, f"{node.name}_last", weight)
    node.args = tuple(arguments)
