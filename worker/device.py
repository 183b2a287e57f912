"""What a worker computes on."""

from __future__ import annotations

import logging

import torch

from engram import runtime

log = logging.getLogger("engram.worker")


def chosen(wanted: str) -> torch.device:
    """The device to learn on: `auto` is a GPU where there is one.

    Raises
    ------
    RuntimeError
        `cuda` is wanted, and there is none: better to stop than to learn a hundred times slower unnoticed.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise RuntimeError("ENGRAM_DEVICE is cuda, and PyTorch finds no GPU here.")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def prepare(threads: int, wanted: str) -> None:
    """Settle the number of threads and deterministic algorithms; to be called once, before anything is computed."""
    runtime.configure(threads)
    device = chosen(wanted)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    log.info("PyTorch %s on %s with %d threads", torch.__version__, kind, torch.get_num_threads())
