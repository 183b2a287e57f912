"""Static files of the page at `/ui/`, held in memory, packed, and kept by browsers for ever.

The document names all others below a folder that is called by their digest, so that what a browser keeps of one release
is never taken for another's. All addresses are relative: the page works below any path that a proxy serves it at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.middleware.compression import compressed, is_worthwhile

PAGE = "ui/"
"""Where the page is, below the service's address."""

_DOCUMENT = "index.html"
_MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""Of the files that are served; others, such as type declarations, are not."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
"""Content security policy: nothing runs but the page's own files, and nobody but this service is asked."""

_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class StaticFile:
    """One file of the page."""

    content: bytes
    media_type: str

    @cached_property
    def tag(self) -> str:
        """Its entity tag, of the content as it is before it is packed."""
        return f'W/"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    @cached_property
    def packed(self) -> bytes:
        """Its content, compressed."""
        return compressed(self.content)

    def answer(self, request: Request, headers: Mapping[str, str]) -> Response:
        """The response to a request for it: nothing where the browser has it already."""
        about = {"ETag": self.tag, "Vary": "Accept-Encoding", **headers}
        if self.tag in (one.strip() for one in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=about)
        if not is_worthwhile(request, self.content):
            return Response(self.content, media_type=self.media_type, headers=about)
        return Response(self.packed, media_type=self.media_type, headers={**about, "Content-Encoding": "gzip"})


class StaticPage:
    """The page: its document, and the files that this names."""

    def __init__(self, folder: Traversable | None = None) -> None:
        found = dict(_read(folder or files("service.ui").joinpath("static")))
        together = hashlib.sha256()
        for path in sorted(found):
            together.update(f"{path}\0{found[path].tag}\0".encode())
        self.digest = together.hexdigest()[:16]
        document = found.pop(_DOCUMENT)
        self.files = found
        self.document = StaticFile(document.content.replace(b'"./', f'"./{self.digest}/'.encode()), document.media_type)

    def install(self, app: Starlette) -> None:
        """Add the page's routes; a browser that asks for the service's own address is led to it."""
        app.add_route("/", self._lead, include_in_schema=False)
        app.add_route("/ui", self._lead, include_in_schema=False)
        app.add_route("/ui/", self._show, include_in_schema=False)
        app.add_route("/ui/{digest}/{path:path}", self._send, include_in_schema=False)

    async def _lead(self, request: Request) -> Response:
        if request.scope["path"] == "/" and "text/html" not in request.headers.get("accept", ""):
            raise HTTPException(404)
        # A proxy that takes a prefix off without saying so is known to nobody here: the address is relative then.
        where = f"/{PAGE}" if getattr(request.state, "prefix", "") else PAGE
        return RedirectResponse(where, headers={"Vary": "Accept"})

    async def _show(self, request: Request) -> Response:
        return self.document.answer(request, {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})

    async def _send(self, request: Request) -> Response:
        found = self.files.get(request.path_params["path"])
        if found is None:
            raise HTTPException(404)
        # During an upgrade another replica may have sent the document: its files are better than none, but not kept.
        same = request.path_params["digest"] == self.digest
        return found.answer(request, {"Cache-Control": _FOR_EVER if same else "no-store"})


def _read(folder: Traversable, below: str = "") -> Iterator[tuple[str, StaticFile]]:
    """The files in a folder and below by their paths."""
    for entry in folder.iterdir():
        path = f"{below}{entry.name}"
        if entry.is_dir():
            yield from _read(entry, f"{path}/")
        elif (media := _MEDIA_TYPES.get(path[path.rfind(".") :])) is not None:
            yield path, StaticFile(entry.read_bytes(), media)
