"""Bounds on what a request may send."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InvalidJson, RequestTooLarge, ServiceError, UploadTooLarge

_UPLOADS = re.compile(r"/v1/models/[^/]+/tasks/?")


class BodyLimit:
    """ASGI middleware that ends the reading of a body that is too large, announced or not."""

    def __init__(self, app: ASGIApp, requests: int, uploads: int) -> None:
        self._app = app
        self._requests = requests
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = bool(_UPLOADS.fullmatch(scope["path"]))
        limit = self._uploads if upload else self._requests
        announced = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        left = limit

        async def counted() -> Message:
            nonlocal left
            if announced.isdigit() and int(announced) > limit:
                raise _too_large(upload, limit)
            message = await receive()
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                if left < 0:
                    raise _too_large(upload, limit)
            return message

        await self._app(scope, counted, send)


def _too_large(upload: bool, limit: int) -> ServiceError:
    kind = UploadTooLarge if upload else RequestTooLarge
    return kind(f"The body has more than {limit} bytes.")


async def read_json(request: Request) -> Any:
    """The body as JSON; raises InvalidJson."""
    return parse_json(await request.body(), "The body")


def parse_json(data: bytes | str, what: str) -> Any:
    """`data` as JSON; raises InvalidJson that names `what`."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"{what} is not JSON.") from error
