"""PyTorch's library, loaded beside what else is imported."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import threading
from pathlib import Path

LIBRARY = Path("lib", "libtorch_cpu.so")
"""Of PyTorch's package; where it has another name, PyTorch loads it itself."""


def preload_torch() -> threading.Thread:
    """The thread that has the operating system load PyTorch's library, of hundreds of megabytes, while others import.

    A fifth of what importing PyTorch takes is its symbols being resolved, which holds up no other thread of Python.
    """
    thread = threading.Thread(target=_load, name="preload", daemon=True)
    thread.start()
    return thread


def _load() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # which importing PyTorch will explain
        found = importlib.util.find_spec("torch")
        for place in (found and found.submodule_search_locations) or ():
            if (path := Path(place) / LIBRARY).is_file():
                ctypes.CDLL(str(path))
