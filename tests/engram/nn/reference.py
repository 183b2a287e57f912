"""Slow reference of the network: loops over owners and units, in float64, without the blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engram.nn.layout import IMAGE, Node
from engram.nn.network import Network

Array = NDArray[np.float64]


def _state(network: Network) -> list[dict[str, Array]]:
    return [
        {name: value.detach().numpy().astype(np.float64) for name, value in engram.state_dict().items()}
        for engram in network.stack
    ]


def _correlate(channel: Array, kernel: Array, node: Node) -> Array:
    """One channel (H, W) with one kernel (k, k), zero padding."""
    padded = np.pad(channel, node.padding)
    height = (channel.shape[0] + 2 * node.padding - node.kernel) // node.stride + 1
    width = (channel.shape[1] + 2 * node.padding - node.kernel) // node.stride + 1
    out = np.zeros((height, width))
    for row in range(node.kernel):
        for column in range(node.kernel):
            rows = slice(row, row + node.stride * height, node.stride)
            columns = slice(column, column + node.stride * width, node.stride)
            out += kernel[row, column] * padded[rows, columns]
    return out


def _max_pool(channel: Array, node: Node) -> Array:
    padded = np.pad(channel, node.padding, constant_values=-np.inf)
    height = (padded.shape[0] - node.kernel) // node.stride + 1
    width = (padded.shape[1] - node.kernel) // node.stride + 1
    out = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            top, left = row * node.stride, column * node.stride
            out[row, column] = padded[top : top + node.kernel, left : left + node.kernel].max()
    return out


def reference_logits(network: Network, image: Array) -> list[Array]:
    """The logits of every owner's head for one image (C, H, W) of floats in [0, 1].

    `values[owner][node][unit]` is what one unit of one owner puts out: a map, a number, or after flattening a vector.
    """
    states, values = _state(network), list[dict[str, list[Array]]]()
    logits = []
    for owner, state in enumerate(states):
        own: dict[str, list[Array]] = {}
        values.append(own)
        for node in network.layout.nodes:
            units = network.stack[owner].units[node.layer]
            own[node.name] = [_unit(network, states, values, owner, node, unit, image) for unit in range(units)]
        read = _read(values, owner, network.layout.features.name)
        weight, bias = state["head.weight"], state["head.bias"]
        logits.append(np.array([bias[label] + float(weight[label] @ read) for label in range(len(bias))]))
    return logits


def _read(values: list[dict[str, list[Array]]], owner: int, source: str) -> Array:
    """What a dense layer reads: unit after unit, owner after owner, none later than `owner`."""
    return np.concatenate([np.ravel(unit) for earlier in range(owner + 1) for unit in values[earlier][source]])


def _unit(
    network: Network,
    states: list[dict[str, Array]],
    values: list[dict[str, list[Array]]],
    owner: int,
    node: Node,
    unit: int,
    image: Array,
) -> Array:
    state, own = states[owner], values[owner]
    match node.operation:
        case "conv":
            source = node.sources[0]
            kernels = state[f"blocks.{node.name}.conv.weight"][unit]
            channels = (
                list(image)
                if source == IMAGE
                else [channel for earlier in range(owner + 1) for channel in values[earlier][source]]
            )
            out = sum(_correlate(channel, kernel, node) for channel, kernel in zip(channels, kernels, strict=True))
            norm = f"blocks.{node.name}.norm."
            out = (out - state[norm + "running_mean"][unit]) / np.sqrt(state[norm + "running_var"][unit] + 1e-5)
            out = out * state[norm + "weight"][unit] + state[norm + "bias"][unit]
        case "dense":
            source = node.sources[0]
            read = np.ravel(image) if source == IMAGE else _read(values, owner, source)
            linear = f"blocks.{node.name}.linear."
            out = np.asarray(state[linear + "weight"][unit] @ read + state[linear + "bias"][unit])
        case "max_pool":
            out = _max_pool(own[node.sources[0]][unit], node)
        case "global_average":
            out = np.asarray(own[node.sources[0]][unit].mean())
        case "flatten":
            out = np.ravel(own[node.sources[0]][unit])
        case "add":
            out = own[node.sources[0]][unit] + own[node.sources[1]][unit]
    return np.maximum(out, 0) if node.rectify else out
