"""Compression of answers that stay the same, by gzip, for whoever says that it takes that."""

from __future__ import annotations

import gzip

from starlette.requests import Request

_LEAST = 512
"""Bytes from which on an answer is sent compressed."""
_NEVER = frozenset({"q=0", "q=0.0", "q=0.00", "q=0.000"})


def compressed(content: bytes) -> bytes:
    """The content in gzip, the same bytes in every process."""
    return gzip.compress(content, 9, mtime=0)


def is_worthwhile(request: Request, content: bytes) -> bool:
    """Whether an answer is to be sent compressed: the request's `Accept-Encoding` allows that, and it is not small."""
    if len(content) < _LEAST:
        return False
    for choice in ",".join(request.headers.getlist("accept-encoding")).lower().split(","):
        name, *parameters = (part.strip().replace(" ", "") for part in choice.split(";"))
        if name == "gzip":
            return _NEVER.isdisjoint(parameters)
    return False
