"""Tests of ONNX Runtime as the engine of tasks' networks."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy
import pytest
import torch
from pydantic import ValidationError

from engram.config.engines import ONNX_RUNTIME_2
from engram.errors import EngineMissing
from engram.nn import onnx_network
from engram.nn.closures import onnx_engine
from engram.nn.closures.engines import ENGINES
from engram.nn.network import Network
from testing.data.patterns import definition
from tests.engram.nn.reading import random_network

installed = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))), reason="the extra onnx is not installed"
)


def _by_onnx(network: Network) -> Network:
    return Network(network.layout, network.stack, engine=ENGINES[ONNX_RUNTIME_2, "fp32"])


def _images(network: Network, count: int) -> torch.Tensor:
    return torch.rand(count, network.layout.channels, *network.layout.image_size)


@installed
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_runtime_whose_bytes_depend_on_neighbours_is_refused(
    monkeypatch: pytest.MonkeyPatch, count: int, dead: bool
) -> None:
    """Of a network, too, that gives all images the same."""
    plain = onnx_network.one_thread

    class Differing:
        def __init__(self, *given: Any, **options: Any) -> None:
            self._session = plain(*given, **options)

        def run(self, outputs: None, given: Mapping[str, Any]) -> list[Any]:
            found = self._session.run(outputs, given)
            return [value * numpy.float32(1 + 2.0**-20) if len(value) == count else value for value in found]

    monkeypatch.setattr(onnx_engine, "one_thread", Differing)
    network = _by_onnx(random_network("resnet18", owners=1))
    for name, value in network.stack[0].state_dict().items():
        value -= 100 * (dead and name.endswith("norm.bias"))
    with pytest.raises(EngineMissing, match="other bytes beside others"):
        network.answer("task 0", _images(network, 2))


def test_it_computes_in_float32_alone() -> None:
    with pytest.raises(ValidationError, match="onnxruntime-2"):
        definition("cnn", engine=ONNX_RUNTIME_2, precision="bf16")
