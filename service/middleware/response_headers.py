"""Headers of every answer: security, caching, and what is left of rate limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.middleware.forwarding import led_below

NOTHING_RUNS = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""For answers that are data: whatever a browser takes them for, nothing in them runs, loads or is framed."""

COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": NOTHING_RUNS,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not have its own; `Strict-Transport-Security` is for whoever ends TLS."""

RawHeaders = list[tuple[bytes, bytes]]

_COMMON: RawHeaders = [(name.lower().encode(), value.encode()) for name, value in COMMON.items()]
_NAMES = frozenset(name for name, _ in _COMMON)


def completed(headers: RawHeaders, uses: Sequence[LimitUse], prefix: str) -> RawHeaders:
    """The headers of an answer with those of `COMMON`, and with what its caller's limits have left.

    Parameters
    ----------
    prefix
        The path that a proxy serves this below, and so the beginning of a `Location`.
    """
    names = {name for name, _ in headers}
    found = [*headers, *_COMMON] if names.isdisjoint(_NAMES) else [*headers, *(c for c in _COMMON if c[0] not in names)]
    if b"location" in names:
        found = [
            (name, led_below(value.decode("latin-1"), prefix).encode("latin-1") if name == b"location" else value)
            for name, value in found
        ]
    return (
        found + [(name.lower().encode(), value.encode()) for name, value in remaining(uses).items()] if uses else found
    )


@dataclass(frozen=True)
class LimitUse:
    """What is left of one rate limit or quota, for the headers of an answer."""

    policy: str
    limit: int
    window: int
    """Seconds."""
    left: int
    reset: int
    """Seconds until there is more."""


def remaining(uses: Sequence[LimitUse]) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers writes them."""
    if not uses:
        return {}
    return {
        "RateLimit-Policy": ", ".join(f'"{use.policy}";q={use.limit};w={use.window}' for use in uses),
        "RateLimit": ", ".join(f'"{use.policy}";r={use.left};t={use.reset}' for use in uses),
    }
