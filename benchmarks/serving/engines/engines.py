"""Engines that are compared; those of packages that are not installed are left out."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks.serving.engines.folding import folded
from benchmarks.serving.engines.parts import Run
from engram.nn import runtimes

Prepare = Callable[[Run, Tensor, int], Run]
"""From a part, an example of what it reads and a number of threads to what computes it in batches of that size."""


class _Whole(nn.Module):
    """A part as a module, for what follows modules alone."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def forward(self, given: Tensor) -> tuple[Tensor, ...]:
        return self._run(given)


def _graph(run: Run, example: Tensor) -> GraphModule:
    """PyTorch's own operations one after the other, with the weights as constants."""
    return make_fx(lambda given: run(given))(example)


def _traced(run: Run, example: Tensor) -> torch.jit.ScriptModule:
    found: torch.jit.ScriptModule = torch.jit.trace(_Whole(run), example, check_trace=False)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return found


def folding(run: Run, example: Tensor, threads: int) -> Run:
    """PyTorch's own operations, with normalisations folded into convolutions whose channels come last."""
    graph = folded(_graph(run, example))
    return lambda given: tuple(graph(given))


def inductor(run: Run, example: Tensor, threads: int) -> Run:
    """PyTorch's compiler, which needs one for C++; AOTInductor makes the same code ahead of time."""
    import torch._inductor.config as settings

    with settings.patch(freezing=True):
        compiled = torch.compile(_graph(run, example), fullgraph=True, dynamic=False)
        compiled(example)
    return lambda given: tuple(compiled(given))


def openvino(run: Run, example: Tensor, threads: int) -> Run:
    """OpenVINO, in float32, one stream of so many threads."""
    ov = runtimes.openvino()
    converted = ov.convert_model(_traced(run, example), example_input=example, input=[list(example.shape)])
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "ENABLE_CPU_PINNING": "NO",
    }
    compiled = ov.Core().compile_model(converted, "CPU", settings)
    request, outputs = compiled.create_infer_request(), compiled.outputs

    def infer(given: Tensor) -> tuple[Tensor, ...]:
        found: Any = request.infer([given.numpy()], share_inputs=True, share_outputs=False)
        return tuple(torch.from_numpy(found[output]) for output in outputs)

    return infer


def onnxruntime(run: Run, example: Tensor, threads: int) -> Run:
    """ONNX Runtime, in float32, with so many threads."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="engram-engines-") as folder:
        path = str(Path(folder) / "part.onnx")
        torch.onnx.export(_traced(run, example), (example,), path, dynamo=False)
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    [name] = [one.name for one in session.get_inputs()]
    return lambda given: tuple(map(torch.from_numpy, session.run(None, {name: given.numpy()})))


ENGINES: Mapping[str, tuple[Prepare, str | None]] = {
    "folded": (folding, None),
    "inductor": (inductor, None),
    "openvino": (openvino, "openvino"),
    "onnxruntime": (onnxruntime, "onnxruntime"),
}
"""By name, with the package that each needs."""


def installed() -> list[str]:
    """The names of those whose packages are here."""
    return [name for name, (_, package) in ENGINES.items() if package is None or find_spec(package) is not None]


def prepared(name: str, run: Run, example: Tensor, threads: int) -> Run:
    """What computes a part by an engine; whatever the engine raises, where it cannot."""
    run(example)  # what is found out about the machine is found out before it is followed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is traced and exported, each engine has its own to say
        return ENGINES[name][0](run, example, threads)
