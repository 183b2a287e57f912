"""Races of threads that start at one barrier."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def race(count: int, run: Callable[[int], T]) -> list[T]:
    """Run `run` in `count` threads that start at one barrier; returns their results."""
    barrier = threading.Barrier(count)

    def start(number: int) -> T:
        barrier.wait()
        return run(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))
