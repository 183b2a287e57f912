"""Moments as text: RFC 3339 in UTC with microseconds, so that they sort as they follow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def now() -> str:
    """This moment."""
    return _text(datetime.now(UTC))


def before(moment: str, apart: timedelta) -> str:
    """The moment that lies `apart` before another."""
    return _text(datetime.fromisoformat(moment) - apart)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
