"""Import of torchvision beside any build of PyTorch.

torchvision's wheel needs compiled operators that match torch's build. Next to a CPU-only torch they cannot be loaded,
and torchvision then fails while it registers shape functions for operators that do not exist. Nothing here uses those
operators: declaring their schemas is enough for the import to succeed.
"""

from __future__ import annotations

import importlib
import sys
import threading

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # the declarations live as long as their library does
_importing = threading.RLock()


def import_torchvision() -> None:
    """Import torchvision, which packages that import it themselves then find; once, however many threads ask."""
    with _importing:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch leaves it untyped
            for operator in ("nms", "qnms"):
                library.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            _declared.append(library)
            importlib.import_module("torchvision")
