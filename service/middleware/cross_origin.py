"""Cross-origin resource sharing: answers that web pages of other origins may read."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from service.errors.problem_details import answer, problem
from service.settings import ANY, ServiceSettings

METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE")
ASKED_WITH = (
    *("Authorization", "Content-Type", "Content-Encoding", "Idempotency-Key", "Last-Event-ID", "Cache-Control"),
    *("X-Request-ID", "X-Requested-With", "traceparent", "tracestate", "baggage", "Inference-Header-Content-Length"),
)
"""Headers that a page may send, besides those that any may."""
READ = (
    *("Location", "Retry-After", "Allow", "Accept-Encoding", "WWW-Authenticate", "RateLimit", "RateLimit-Policy"),
    *("Idempotent-Replayed", "X-Request-ID", "X-Engram-Task", "X-Engram-Label", "X-Engram-Version"),
    "Inference-Header-Content-Length",
)
"""Headers of an answer that a page may read, besides those that any may."""


class CrossOrigin(CORSMiddleware):
    """ASGI middleware around all others that lets pages of the given origins read answers, refusals as well.

    Preflights are answered here, without a key. Credentials of the browser's own, such as cookies, are never asked for:
    a key is in a header that the page itself sends.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=ASKED_WITH,
            expose_headers=READ,
            # Pages of the internet may ask a service of a private network only if they are named.
            allow_private_network=ANY not in origins,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        answered = super().preflight_response(request_headers)
        if answered.status_code == 200:
            return answered
        headers = {
            name: value
            for name, value in answered.headers.items()
            if name == "vary" or name.startswith("access-control-")
        }
        detail = bytes(answered.body).decode().removeprefix("Disallowed CORS ")
        return answer(problem(403, "cross_site", f"ENGRAM_CORS_ORIGINS does not allow this: {detail}."), headers)


def readable(app: ASGIApp, settings: ServiceSettings) -> ASGIApp:
    """`app` with answers that pages of the origins in `settings` may read; `app` itself where there are none."""
    return CrossOrigin(app, settings.cors_origins) if settings.cors_origins else app
