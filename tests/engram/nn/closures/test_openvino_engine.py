"""Tests of OpenVINO as the engine of tasks' networks."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from engram.config.engines import OPENVINO
from engram.errors import EngineMissing
from engram.nn.closures import openvino_engine
from engram.nn.closures.engines import ENGINES
from engram.nn.network import Network
from engram.nn.runtimes import OPEN_VINO
from tests.engram.nn.reading import random_network

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="the extra openvino is not installed")


def _by_openvino(network: Network) -> Network:
    return Network(network.layout, network.stack, engine=ENGINES[OPENVINO, "fp32"])


def test_threads_that_ask_at_once_have_their_own_answers() -> None:
    network = _by_openvino(random_network("resnet18", owners=1))
    images = torch.rand(64, network.layout.channels, *network.layout.image_size)
    expected = network.answer("task 0", images)[1]
    start = threading.Barrier(4)

    def ask(number: int) -> bool:
        start.wait()
        mine = slice(16 * number, 16 * number + 16)
        return all(torch.equal(network.answer("task 0", images[mine])[1], expected[mine]) for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(4)))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted on Linux")
def test_a_network_has_no_threads_of_its_own_and_leaves_small_numbers_as_they_are() -> None:
    first = _by_openvino(random_network("cnn", owners=1))
    image = torch.rand(1, first.layout.channels, *first.layout.image_size)
    first.answer("task 0", image)
    threads = len(list(Path("/proc/self/task").iterdir()))
    more = _by_openvino(random_network("cnn", owners=4, seed=1))
    for engram in more.stack:
        more.answer(engram.task, image)
    assert len(list(Path("/proc/self/task").iterdir())) == threads
    assert float(torch.tensor(1e-40) * 1.0) > 0


def test_nobody_is_told_that_it_is_imported(tmp_path: Path) -> None:
    """By default its import leaves a number of its user's in the home folder, and starts a process that sends it."""
    asked = "import sys; from engram.nn.runtimes import openvino; openvino(); print(*sys.modules)"
    home = {**os.environ, "HOME": str(tmp_path)}
    modules = subprocess.run([sys.executable, "-c", asked], env=home, check=True, capture_output=True, text=True).stdout
    assert "openvino" in modules.split()
    assert not any(name.startswith("openvino_telemetry") for name in modules.split())
    assert not list(tmp_path.iterdir())


def test_a_processor_on_which_it_computes_in_another_precision_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(openvino_engine.PRECISIONS, "fp32", "bf16")
    plain = openvino_engine._core().compile_model

    class Core:
        def compile_model(self, model: object, device: str, settings: dict[str, object]) -> object:
            return plain(model, device, settings | {"INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(openvino_engine, "_core", Core)
    network = _by_openvino(random_network("cnn", owners=1))
    with pytest.raises(EngineMissing, match=r"^OpenVINO computes in f32 on this processor instead of bf16$"):
        network.answer("task 0", torch.rand(1, network.layout.channels, *network.layout.image_size))


def test_what_it_says_of_a_network_is_told() -> None:
    """Its messages begin with where in its sources they come from."""
    said = (
        "Check 'rank == 4' failed at src/core/shape.hpp:307:\nWhile validating node 'Convolution':\nChannels differ.\n"
    )
    error = OPEN_VINO.refusal("'task 0'", RuntimeError(said))
    assert str(error) == "OpenVINO cannot be given 'task 0': RuntimeError: Channels differ."
    lacking = OPEN_VINO.refusal("'task 0'", RuntimeError("Exception from src/core.cpp:117:\ncan't allocate 55 bytes\n"))
    assert isinstance(lacking, MemoryError)
    assert str(lacking) == "OpenVINO: can't allocate 55 bytes"


def test_threads_that_import_it_at_once_are_not_in_each_others_way() -> None:
    asked = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from engram.nn.runtimes import openvino
start = threading.Barrier(4)
def ask(number):
    start.wait()
    return openvino().__name__
with ThreadPoolExecutor(4) as pool:
    print(*pool.map(ask, range(4)), "openvino_telemetry" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True).stdout
    assert said.split() == [*["openvino"] * 4, "False"]
