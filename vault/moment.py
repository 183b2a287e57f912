"""Moments as text: RFC 3339 in UTC with microseconds, so that they sort as they follow."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """This moment."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
