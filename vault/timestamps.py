"""RFC 3339 timestamps in UTC with microseconds, which sort as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def now() -> str:
    """The current time."""
    return _text(datetime.now(UTC))


def earlier(timestamp: str, by: timedelta) -> str:
    """The timestamp that lies `by` before another."""
    return _text(datetime.fromisoformat(timestamp) - by)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
