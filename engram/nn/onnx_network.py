"""Networks that users brought, run by ONNX Runtime, one image at a time."""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engram.errors import AnswersDiffer
from engram.nn.pretrained.network import PretrainedNetwork
from engram.nn.pretrained.preprocessing import prepare
from engram.nn.pretrained.taps import Seen
from engram.nn.runtimes import ONNX

BOUND = 1e-3
"""How far what it computes may lie from PyTorch's, in multiples of the largest value of a level, or of 1."""


class _Tapped(nn.Module):
    """A network's input to all that is read of it, as a tuple."""

    def __init__(self, network: PretrainedNetwork) -> None:
        super().__init__()
        self._network = network

    def forward(self, prepared: Tensor) -> tuple[Tensor, ...]:
        seen = self._network.seen_in(prepared)
        own = () if seen.logits is None or not self._network.description.outputs else (seen.logits,)
        return (*seen.levels, seen.features, *own)


class OnnxNetwork:
    """A network as a session of one thread, whose bits depend on no number of threads; safe to use from any thread.

    Parameters
    ----------
    images
        uint8 (N, C, H, W), of which it has to see what PyTorch does.

    Raises
    ------
    EngineMissing
        The packages are not installed, or cannot express the network.
    AnswersDiffer
        What they compute is not what PyTorch does.
    """

    def __init__(self, network: PretrainedNetwork, images: Tensor) -> None:
        ONNX.require()
        self._network = network
        self._preprocessing = network.description.preprocessing
        self._session = _session(network)
        [given] = self._session.get_inputs()
        self._given = given.name
        for image in torch.split(images, 1):
            self._compare(image)

    def look(self, image: Tensor) -> Seen:
        """What the network sees in one image, uint8 (1, C, H, W) on the CPU."""
        assert len(image) == 1, "each image is a forward of its own"
        return self._seen(prepare(self._preprocessing, image))

    def _seen(self, prepared: Tensor) -> Seen:
        found = [torch.from_numpy(one) for one in self._session.run(None, {self._given: prepared.numpy()})]
        levels = len(self._network.description.levels)
        logits = found[levels + 1] if len(found) > levels + 1 else None
        return Seen(tuple(found[:levels]), found[levels], logits)

    def _compare(self, image: Tensor) -> None:
        here, there = self.look(image), self._network.look(image)
        pairs = [*zip(here.levels, there.levels, strict=True), (here.features, there.features)]
        for mine, its in pairs:
            most = BOUND * max(1.0, float(its.abs().max()))
            apart = float((mine - its).abs().max())
            if not apart <= most:
                name = self._network.description.architecture
                raise AnswersDiffer(f"ONNX Runtime computes {name} otherwise than PyTorch: by {apart:.3g}")


def one_thread(path: str, *, arena: bool = True) -> Any:
    """A session of one thread, of the graph in a file; whatever ONNX Runtime raises, where it cannot.

    Parameters
    ----------
    arena
        Whether it keeps the memory that a run took.
    """
    ort: Any = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = arena
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _session(network: PretrainedNetwork) -> Any:
    size = network.description.preprocessing.size
    example = torch.zeros(1, 3, size, size)
    with tempfile.TemporaryDirectory(prefix="engram-onnx-") as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of a way to export that goes some day: then there is an error, and none here
        path = str(Path(folder) / "network.onnx")
        try:
            traced = torch.jit.trace(_Tapped(network), example, check_trace=False)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            with contextlib.redirect_stdout(io.StringIO()):  # where it writes pages of what it could not express
                torch.onnx.export(traced, (example,), path, dynamo=False)
            return one_thread(path)
        except MemoryError:
            raise
        except Exception as error:  # PyTorch's and ONNX Runtime's own, of many kinds
            raise ONNX.refusal(network.description.architecture, error) from error


_made: weakref.WeakKeyDictionary[PretrainedNetwork, OnnxNetwork] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def onnx_network(network: PretrainedNetwork, images: Callable[[], Tensor]) -> OnnxNetwork:
    """The session of a network, made once a process and compared by these images; raises as `OnnxNetwork`."""
    with _making:
        if network not in _made:
            _made[network] = OnnxNetwork(network, images())
        return _made[network]
