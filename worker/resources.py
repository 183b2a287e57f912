"""Time, memory and device of a job."""

from __future__ import annotations

import gc
import logging
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import torch

from engram import runtime
from engram.context import choose_device
from vault.jobs.job import Job
from vault.vault import Vault
from worker.interruption import EndReason
from worker.settings import WorkerSettings

log = logging.getLogger("engram.worker")

_PAGE_BYTES = resource.getpagesize()
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")
"""What PyTorch's errors say when there is none left; only those of a GPU have a class of their own."""


def prepare(threads: int, wanted: str) -> None:
    """Settle threads and deterministic algorithms, once, before anything is computed; raises DeviceMissing."""
    runtime.configure(threads)
    device = chosen(wanted)
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    log.info("PyTorch %s on %s with %d threads", torch.__version__, kind, torch.get_num_threads())


def chosen(wanted: str) -> torch.device:
    """The device to learn on; raises DeviceMissing."""
    return choose_device(wanted, "ENGRAM_DEVICE")


def end_finder(vault: Vault, job: Job, settings: WorkerSettings) -> Callable[[], EndReason | None]:
    """The function that says why a job is to end: it was cancelled, has taken too long, or takes too much memory."""
    wanted = job.options.get("max_seconds")
    times = [limit for limit in (settings.job_seconds, wanted if isinstance(wanted, int | float) else None) if limit]
    begun = datetime.fromisoformat(vault.jobs.attempts(job.id)[0].started_at)

    def find_end() -> EndReason | None:
        if vault.jobs.cancel_requested(job.id):
            return EndReason("cancelled", "The job was cancelled.", cancelled=True)
        if times and (datetime.now(UTC) - begun).total_seconds() > min(times):
            return EndReason("job_timeout", f"The job took longer than {min(times):g} seconds, all attempts counted.")
        if settings.worker_memory_bytes and resident() > settings.worker_memory_bytes:
            return out_of_memory(settings)
        return None

    return find_end


def out_of_memory(settings: WorkerSettings) -> EndReason:
    """The end of a job that takes too much memory."""
    limit = f"the {settings.worker_memory_bytes:,} bytes that it may" if settings.worker_memory_bytes else "there is"
    return EndReason("job_out_of_memory", f"The worker took more memory for the job than {limit}.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def resident() -> int:
    """Bytes of this process in memory; 0 where that cannot be told."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def release() -> None:
    """Give back the memory that a job has left."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    runtime.give_back_freed_memory()


def limit_memory(settings: WorkerSettings) -> None:
    """Have the operating system refuse the process more memory than it may take; to be called once.

    What is counted so is private memory, touched or not: what is reserved by now and was never touched comes on top.
    On a GPU, whose driver reserves without measure, only what is resident is watched.
    """
    if not settings.worker_memory_bytes or sys.platform != "linux" or torch.cuda.is_available():
        return
    reserved = int(Path("/proc/self/statm").read_text().split()[5]) * _PAGE_BYTES
    limit = settings.worker_memory_bytes + max(0, reserved - resident())
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
