"""Runtimes beside PyTorch, which extras install."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from engram.config.engines import ONNX_RUNTIME, ONNX_RUNTIME_2, OPENVINO, EngineName
from engram.errors import EngineMissing

_WHERE = ("Exception from ", "Check ", "While ")
"""How lines begin in which OpenVINO says where it raised, and by which condition; what for is in the others."""

_LACKS_MEMORY = ("allocate", "can't alloc", "bad_alloc", "out of memory")
"""What is said where there is too little."""


@dataclass(frozen=True)
class InferenceRuntime:
    """What computes networks in PyTorch's place."""

    name: str
    packages: tuple[str, ...]
    """Modules that it takes; the last one computes."""
    extra: str
    """Which installs them."""

    def require(self) -> None:
        """Raise EngineMissing where what it needs is not installed."""
        if missing := [name for name in self.packages if importlib.util.find_spec(name) is None]:
            raise EngineMissing(
                f"the model is answered by {self.name}, and {missing[0]} is not installed here: "
                f"pip install 'engram-vision[{self.extra}]'"
            )

    @cache  # noqa: B019  # there are as many as there are below
    def version(self) -> str:
        """What the bits of answers depend on besides PyTorch; raises EngineMissing."""
        self.require()
        return f"{self.packages[-1]} {version(self.packages[-1])}"

    def refusal(self, network: str, error: Exception) -> EngineMissing | MemoryError:
        """What is raised where it raised something of a network, as which it is called."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = [line for line in lines if not line.startswith(_WHERE)]
        if any(sign in line.lower() for line in lines for sign in _LACKS_MEMORY):
            return MemoryError(f"{self.name}: {said[0] if said else lines[0]}")
        return EngineMissing(
            f"{self.name} cannot be given {network}: {type(error).__name__}: {(said or [''])[0][:200]}"
        )


ONNX = InferenceRuntime("ONNX Runtime", ("onnx", "onnxruntime"), "onnx")

OPEN_VINO = InferenceRuntime("OpenVINO", ("openvino",), "openvino")

_TELLTALE = "openvino_telemetry"
"""By which OpenVINO tells its makers that it was imported, unless it is not there."""

_importing = threading.Lock()


def openvino() -> Any:
    """The module `openvino`, imported so that it tells nobody of it; raises ImportError."""
    with _importing:  # two threads would each put back what the other has put there
        if "openvino" in sys.modules or _TELLTALE in sys.modules:
            return importlib.import_module("openvino")
        sys.modules[_TELLTALE] = None  # type: ignore[assignment]  # as Python has it of what is not to be found
        try:
            return importlib.import_module("openvino")
        finally:
            sys.modules.pop(_TELLTALE, None)


RUNTIMES: Mapping[EngineName, InferenceRuntime] = {ONNX_RUNTIME: ONNX, ONNX_RUNTIME_2: ONNX, OPENVINO: OPEN_VINO}
"""Of the engines that need one."""
