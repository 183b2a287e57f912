"""Requests that come by a reverse proxy: a path prefix, and what the proxy says of the client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import cast
from urllib.parse import unquote, urlsplit, urlunsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.settings import network, path_prefix

_HOST = re.compile(r"[A-Za-z0-9._~-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class Forwarding:
    """ASGI middleware around all others that handles requests as if they had come without a proxy.

    Below the prefix that the proxy serves paths of, whether it takes the prefix off or not, paths are as without it.
    `Location` leads below the prefix again; it is a path, since which host and scheme the client sees is the proxy's
    business. `scope["state"]` has `prefix`, and `received_host`, the `Host` as it came.

    `X-Forwarded-Prefix`, `-Proto`, `-Host` and `-For` are heeded from trusted proxies only.

    Parameters
    ----------
    prefix
        Where the proxy says none, as `path_prefix` gives it.
    trusted
        Addresses and networks of the proxies that are believed.
    """

    def __init__(self, app: ASGIApp, prefix: str, trusted: Sequence[str]) -> None:
        self._app = app
        self._prefix = prefix
        self._networks = [network(one) for one in trusted]
        forwarded = ProxyHeadersMiddleware(app, [str(one) for one in self._networks])  # type: ignore[arg-type]  # ASGI
        self._forwarded = cast(ASGIApp, forwarded)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        prefix = self._prefix
        state = scope.setdefault("state", {})
        app = self._app
        if self._networks and self._trusts(scope):
            prefix = _forwarded_prefix(scope, prefix)
            _take_host(scope)
            app = self._forwarded
        state["prefix"] = prefix
        scope["path"] = below(prefix, scope["path"])

        async def below_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if (location := headers.get("location")) is not None:
                    headers["location"] = prefix + urlunsplit(urlsplit(location)._replace(scheme="", netloc=""))
            await send(message)

        await app(scope, receive, below_prefix)

    def _trusts(self, scope: Scope) -> bool:
        """Whether whom the request comes from is a trusted proxy."""
        client = scope.get("client")
        try:
            address = ip_address(client[0] if client else "")
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in one for one in self._networks)


def below(prefix: str, path: str) -> str:
    """A decoded path without a prefix, if it has it."""
    plain = unquote(prefix)
    if plain and (path == plain or path.startswith(plain + "/")):
        return path.removeprefix(plain) or "/"
    return path


def _values(scope: Scope, name: bytes) -> list[str]:
    """The values of a header that may be given more than once, or as a list."""
    given = b",".join(value for key, value in scope["headers"] if key == name).decode("latin-1")
    return [value.strip() for value in given.split(",") if value.strip()]


def _forwarded_prefix(scope: Scope, otherwise: str) -> str:
    """What the proxies took off the path one after the other, the outermost first."""
    given = _values(scope, b"x-forwarded-prefix")
    try:
        return path_prefix("".join(path_prefix(one) for one in given)) if given else otherwise
    except ValueError:
        return otherwise


def _take_host(scope: Scope) -> None:
    """Let the host be the one that the client asked for."""
    hosts = _values(scope, b"x-forwarded-host")
    if hosts and _HOST.fullmatch(hosts[0]):
        received = [value for key, value in scope["headers"] if key == b"host"]
        scope["state"]["received_host"] = received[0].decode("latin-1") if received else ""
        others = [(key, value) for key, value in scope["headers"] if key != b"host"]
        scope["headers"] = [(b"host", hosts[0].encode()), *others]
