"""Environment that PyTorch's processes want, which counts from a process's first moment alone."""

from __future__ import annotations

import os
import sys

from telemetry.standard_streams import flush_standard_streams

TUNING = {
    # Given back after every convolution and asked for again at once, memory costs more time than arithmetic.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    # The most that glibc accepts.
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    # An arena for every few threads keeps what it once held: with dozens of threads a process grows for hours.
    "MALLOC_ARENA_MAX": "2",
    # Several small requests at once are served better by one thread each than each by all threads.
    "OMP_NUM_THREADS": "1",
    # Threads that wait for each other by spinning take processors from those they wait for: beside a busy service, a
    # worker with as many threads as there are processors then learns ten times slower.
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""What PyTorch's processes want from their environment; what is set already stays."""


def restart_tuned() -> None:
    """Begin again with the environment that only counts from a process's first moment."""
    missing = {name: value for name, value in TUNING.items() if name not in os.environ}
    if missing:
        flush_standard_streams()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})
