"""How much of its limits a caller has used, as answers tell it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Use:
    """How much of one limit is left, for the headers of an answer."""

    policy: str
    limit: int
    window: int
    """Seconds."""
    left: int
    reset: int
    """Seconds until there is more."""


def remaining(uses: list[Use]) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers writes them."""
    if not uses:
        return {}
    return {
        "RateLimit-Policy": ", ".join(f'"{use.policy}";q={use.limit};w={use.window}' for use in uses),
        "RateLimit": ", ".join(f'"{use.policy}";r={use.left};t={use.reset}' for use in uses),
    }
