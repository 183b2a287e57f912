"""Bounded thread pool for reading many records at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")

THREADS = 16
"""For the whole process, so that the number of threads does not grow with the number of calls."""

_pool = ThreadPoolExecutor(THREADS, thread_name_prefix="reader")


def parallel_map(read: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """Apply `read` to every item in threads; returns the results in the items' order, or raises the first error.

    `read` must not call this function itself: all threads could then wait for one another.
    """
    given = list(items)
    return [read(item) for item in given] if len(given) < 2 else [*_pool.map(read, given)]
