"""Threads that read many records side by side, since a bucket may be far away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")

THREADS = 16
"""For the whole process: threads of each call's own would be as many as calls come in."""

_pool = ThreadPoolExecutor(THREADS, thread_name_prefix="reader")


def each(read: Callable[[Item], Found], items: Iterable[Item]) -> list[Found]:
    """What `read` gives for every item, in their order; the first error is raised.

    `read` must not come here itself: all threads could be waiting for one another.
    """
    given = list(items)
    return [read(item) for item in given] if len(given) < 2 else [*_pool.map(read, given)]
