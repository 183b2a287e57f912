"""The ids of jobs: 32 hexadecimal digits that sort by the moment they were given."""

from __future__ import annotations

import re
import secrets
import threading
import time

_ID = re.compile(r"[0-9a-f]{32}")
_ALL_ONES = (1 << 128) - 1


class _Clock:
    """Milliseconds and a counter that together only ever rise within this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def tick(self) -> int:
        """64 bits: milliseconds since 1970 in the upper 48."""
        with self._lock:
            self._last = max(self._last + 1, (time.time_ns() // 1_000_000) << 16)
            return self._last


_clock = _Clock()


def new_job_id() -> str:
    """An id greater than all that this process gave before, and than those of other processes a millisecond ago."""
    return f"{_clock.tick():016x}{secrets.token_hex(8)}"


def given_at(job_id: str) -> float:
    """When an id was given, in seconds since 1970."""
    return (int(job_id, 16) >> 80) / 1000


def is_job_id(text: str) -> bool:
    """Whether a job can have this id."""
    return _ID.fullmatch(text) is not None


def inverted(job_id: str) -> str:
    """32 digits that sort the other way round, since object stores list in ascending order only."""
    return f"{_ALL_ONES - int(job_id, 16):032x}"
