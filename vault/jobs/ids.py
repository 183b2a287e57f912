"""Job ids: 32 hexadecimal digits that sort by time."""

from __future__ import annotations

import re
import secrets
import threading
import time

_ID = re.compile(r"[0-9a-f]{32}")
_ALL_ONES = (1 << 128) - 1


class _Clock:
    """Milliseconds and a counter, which together strictly increase within this process."""

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
    """An id greater than all earlier ones of this process, and than those of other processes a millisecond ago."""
    return f"{_clock.tick():016x}{secrets.token_hex(8)}"


def issued_at(job_id: str) -> float:
    """Time at which an id was issued, in seconds since 1970."""
    return (int(job_id, 16) >> 80) / 1000


def is_job_id(text: str) -> bool:
    """Whether the text is a valid job id."""
    return _ID.fullmatch(text) is not None


def inverted(job_id: str) -> str:
    """32 digits that sort in the reverse order, since object stores list in ascending order only."""
    return f"{_ALL_ONES - int(job_id, 16):032x}"
