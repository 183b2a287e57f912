"""Growth of processes: trends of their memory, open files and threads."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """Memory, files and threads of a process at one time."""

    seconds: float
    """Since the watch began."""
    rss: int
    """Resident bytes."""
    files: int
    threads: int


@dataclass(frozen=True)
class Trend:
    """Straight line fitted to measurements."""

    slope: float
    """Per second."""
    error: float
    """Standard error of the slope."""
    level: float
    """Mean."""


class ProcessWatch:
    """Sampler of processes: one sample every `every` seconds, as long as its context is open."""

    def __init__(self, processes: Mapping[str, int], every: float = 1.0) -> None:
        self._processes = dict(processes)
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self.samples: dict[str, list[Sample]] = {name: [] for name in processes}

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            for name, pid in self._processes.items():
                self.samples[name].append(sample(pid, time.monotonic() - self._began))


def sample(pid: int, seconds: float = 0.0) -> Sample:
    """A sample of a process; raises OSError if it has ended."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Sample(
        seconds=seconds,
        rss=int(status["VmRSS"].split()[0]) * 1024,
        files=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(status["Threads"]),
    )


def settled(samples: Sequence[Sample], share: float = 0.5) -> list[Sample]:
    """The last `share` of the samples, once caches, pools and arenas have filled up."""
    return list(samples[round(len(samples) * (1 - share)) :])


def trend(times: Sequence[float], values: Sequence[float], blocks: int = 12) -> Trend:
    """Least squares through the means of `blocks` intervals, since neighbouring samples are correlated."""
    assert len(times) >= blocks, "there are too few samples"
    edges = [round(number * len(times) / blocks) for number in range(blocks + 1)]
    x = [math.fsum(times[a:b]) / (b - a) for a, b in pairwise(edges)]
    y = [math.fsum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    mean_x, mean_y = math.fsum(x) / blocks, math.fsum(y) / blocks
    spread = math.fsum((one - mean_x) ** 2 for one in x)
    slope = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    left = math.fsum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return Trend(slope, math.sqrt(left / (blocks - 2) / spread), mean_y)


@dataclass
class ProcessGrowth:
    """Trends of one process over its settled samples."""

    samples: Sequence[Sample]
    rss: Trend = field(init=False)
    files: Trend = field(init=False)
    threads: Trend = field(init=False)

    def __post_init__(self) -> None:
        kept = settled(self.samples)
        times = [one.seconds for one in kept]
        self.rss = trend(times, [one.rss / MIB for one in kept])
        self.files = trend(times, [one.files for one in kept])
        self.threads = trend(times, [one.threads for one in kept])

    def figures(self) -> dict[str, object]:
        """The trends as figures: memory in MiB, slopes per hour with their standard errors."""
        last = self.samples[-1]
        return {
            "rss_mib": [round(self.samples[0].rss / MIB, 1), round(self.rss.level, 1), round(last.rss / MIB, 1)],
            "rss_mib_per_hour": [round(self.rss.slope * 3600, 2), round(self.rss.error * 3600, 2)],
            "files": [self.samples[0].files, max(one.files for one in self.samples), last.files],
            "files_per_hour": [round(self.files.slope * 3600, 2), round(self.files.error * 3600, 2)],
            "threads": [self.samples[0].threads, max(one.threads for one in self.samples), last.threads],
            "threads_per_hour": [round(self.threads.slope * 3600, 2), round(self.threads.error * 3600, 2)],
        }
