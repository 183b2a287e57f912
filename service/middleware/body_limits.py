"""Limits on the size of bodies, on how slowly they come, and on how much of them is held at once."""

from __future__ import annotations

import json
import re
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from service.errors.exceptions import InvalidJson, RequestTooLarge, ServiceError, UploadTooLarge
from service.errors.parameters import check
from service.metrics import Metrics
from service.middleware.content_encoding import UnpackedBody, encodings
from service.middleware.limiter import Limiter
from service.middleware.pace import Pace
from service.settings import ServiceSettings

_UPLOADS = re.compile(r"/v1/models/[^/]+/(tasks|evaluate)/?")
_NETWORKS = re.compile(r"/v1/backbones/?")
_LONGEST_PATH = 256
"""Characters of a path of which it is remembered what it is for."""
_OF_PACKED = frozenset({b"content-encoding", b"content-length"})
_IMAGES = re.compile(r"/v1/models/[^/]+[/:](predict|explain)/?|/v2/models/[^/]+(/versions/[^/]+)?/infer/?")


class _Kind(Enum):
    """What a body brings, which tells how large it may be."""

    IMAGES = auto()
    DOCUMENT = auto()
    UPLOAD = auto()
    NETWORK = auto()


class BodyLimits:
    """Limits on each body, and on all that are held at once.

    What is received counts as held until the request is answered: images and JSON in memory, uploads on disk. Each has
    a limit, beyond which requests are answered that they may come back. A body that comes packed is unpacked here, and
    limited packed and unpacked alike.
    """

    def __init__(self, settings: ServiceSettings, metrics: Metrics) -> None:
        self.settings = settings
        retry = settings.retry_after_seconds
        self.memory = Limiter(metrics, "bodies", "bytes of requests", settings.max_bodies_bytes, retry)
        self.disk = Limiter(metrics, "spool", "bytes of uploads", settings.max_spool_bytes, retry)
        self.largest = {
            _Kind.IMAGES: settings.max_request_bytes,
            _Kind.DOCUMENT: min(settings.max_document_bytes, settings.max_request_bytes),
            _Kind.UPLOAD: settings.max_upload_bytes,
            _Kind.NETWORK: settings.max_backbone_bytes,
        }
        """Bytes of each kind of body."""

    def of(self, scope: Scope, receive: Receive) -> RequestBody:
        """The body of a request; what lies further in sees the headers of the unpacked one."""
        body = RequestBody(scope, receive, self)
        if body.packed:
            scope["headers"] = [(k, v) for k, v in scope["headers"] if k not in _OF_PACKED]
        return body


class RequestBody:
    """One request's body on its way in; it ends where it is too large, announced or not, or comes too slowly."""

    def __init__(self, scope: Scope, receive: Receive, limits: BodyLimits) -> None:
        path, settings = scope["path"], limits.settings
        kind = _kind_of_short(path) if len(path) <= _LONGEST_PATH else _kind(path)
        self._upload = kind in (_Kind.UPLOAD, _Kind.NETWORK)
        self._limiter = limits.disk if self._upload else limits.memory
        self._held = 0
        self.received = 0
        """Bytes as they were sent."""
        self._receive = receive
        names = encodings(scope["headers"])
        self.packed = bool(names)
        self._next = UnpackedBody(self._as_sent, names).receive if names else self._as_sent
        self._pace = Pace(settings.slow_body_bytes, settings.slow_body_seconds)
        self._complete = False
        announced = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        self._announced = int(announced) if announced.isdigit() else 0
        self._limit = limits.largest[kind]

    def close(self) -> None:
        """Hold nothing any more."""
        self._limiter.give(self._held)
        self._held = 0

    async def receive(self) -> Message:
        """The next message; raises what is wrong with it, or with its not coming."""
        message = await self._next()
        if size := len(message.get("body", b"")):
            if self._held + size > self._limit:
                raise self._too_large()
            self._limiter.take(size)
            self._held += size
        return message

    async def _as_sent(self) -> Message:
        """The next message as the client sent it."""
        if self._complete:  # what may still come is that the client has gone
            return await self._receive()
        if self._announced > self._limit:
            raise self._too_large()
        message = await self._pace.keep(self._receive)
        if message["type"] != "http.request":
            return message
        size = len(message.get("body", b""))
        self.received += size
        if self.received > self._limit:
            raise self._too_large()
        self._pace.came(size)
        self._complete = not message.get("more_body", False)
        return message

    def _too_large(self) -> ServiceError:
        kind = UploadTooLarge if self._upload else RequestTooLarge
        unpacked = ", unpacked" if self.packed else ""
        return kind(f"The body has more than {self._limit} bytes{unpacked}.")


def _kind(path: str) -> _Kind:
    """What bodies of requests to a path bring."""
    if _IMAGES.fullmatch(path):
        return _Kind.IMAGES
    if _UPLOADS.fullmatch(path):
        return _Kind.UPLOAD
    return _Kind.NETWORK if _NETWORKS.fullmatch(path) else _Kind.DOCUMENT


_kind_of_short = lru_cache(maxsize=1024)(_kind)


async def read_json(request: Request) -> Any:
    """The body as JSON; raises InvalidJson or InvalidRequest."""
    return parse_json(await request.body(), "The body")


def parse_json(data: bytes | str, what: str) -> Any:
    """`data` as JSON.

    Raises
    ------
    InvalidJson
        It is none; the error names `what`.
    InvalidRequest
        An object has two fields of one name, of which a parser would drop one in silence.
    """
    try:
        return json.loads(data, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"{what} is not JSON.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        check((name for name, _ in pairs), found, "field", ("body",))
    return found
