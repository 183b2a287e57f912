"""How torch computes in this process: threads and determinism, set once and on purpose."""

from __future__ import annotations

import platform

import torch


def configure(threads: int) -> None:
    """Fix the thread count and ask for deterministic algorithms.

    Bits depend on both: an answer is the same again only for the same number of threads. Two processes with as many
    threads as there are cores slow each other down tenfold, so services and workers choose theirs apart.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def environment() -> dict[str, object]:
    """What the bits of an answer depend on besides the model and the batch."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
