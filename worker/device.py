"""What a worker computes on."""

from __future__ import annotations

import logging

import torch

from engram import runtime

log = logging.getLogger("engram.worker")


def prepare(threads: int) -> None:
    """Settle the number of threads and deterministic algorithms; to be called once, before anything is computed."""
    runtime.configure(threads)
    kind = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    log.info("PyTorch %s on %s with %d threads", torch.__version__, kind, torch.get_num_threads())
