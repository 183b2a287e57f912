"""Bodies of requests to a peer: an image file, or a form of several."""

from __future__ import annotations

from starlette.requests import Request


async def image_files(request: Request) -> list[bytes]:
    """The bytes of the images of a request."""
    if request.headers["content-type"].startswith("multipart/"):
        async with request.form() as form:
            return [await part.read() for part in form.getlist("image") if not isinstance(part, str)]
    return [await request.body()]
