"""Headers of every answer: security, caching, and what is left of rate limits."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTHING_RUNS = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""For answers that are data: whatever a browser takes them for, nothing in them runs, loads or is framed."""

COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": NOTHING_RUNS,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not have its own."""


class ResponseHeaders:
    """ASGI middleware that adds headers where the answer has none of its own: what browsers may do with an answer, that
    nobody keeps a copy of it, and what the caller's limits have left.

    `Strict-Transport-Security` is for whoever ends TLS.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in COMMON.items():
                    headers.setdefault(name, value)
                for name, value in remaining(state.get("uses", [])).items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, with_headers)


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


def remaining(uses: list[LimitUse]) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit`, as draft-ietf-httpapi-ratelimit-headers writes them."""
    if not uses:
        return {}
    return {
        "RateLimit-Policy": ", ".join(f'"{use.policy}";q={use.limit};w={use.window}' for use in uses),
        "RateLimit": ", ".join(f'"{use.policy}";r={use.left};t={use.reset}' for use in uses),
    }
