"""Requests that come by a reverse proxy: a path prefix, and what the proxy says of the client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote, urlsplit, urlunsplit

from starlette.types import Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service.settings import network, path_prefix

_HOST = re.compile(r"[A-Za-z0-9._~-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


class Forwarding:
    """What makes requests of a proxy such as had come without one.

    Below the prefix that the proxy serves paths of, whether it takes the prefix off or not, paths are as without it.
    `scope["state"]` has `prefix`, and `received_host`, the `Host` as it came.

    `X-Forwarded-Prefix`, `-Proto`, `-Host` and `-For` are heeded from trusted proxies only.

    Parameters
    ----------
    prefix
        Where the proxy says none, as `path_prefix` gives it.
    trusted
        Addresses and networks of the proxies that are believed.
    """

    def __init__(self, prefix: str, trusted: Sequence[str]) -> None:
        self._prefix = prefix
        self._networks = [network(one) for one in trusted]
        self._heeded = ProxyHeadersMiddleware(_nothing, [str(one) for one in self._networks])  # type: ignore[arg-type]
        self.idle = not prefix and not self._networks
        """Whether there is nothing to be done for any request."""

    async def apply(self, scope: Scope) -> None:
        """Change the scope of a request, before anything else looks at it."""
        prefix = self._prefix
        if self._networks and self._trusts(scope):
            prefix = _forwarded_prefix(scope, prefix)
            _take_host(scope)
            await self._heeded(scope, _no_message, _no_answer)  # type: ignore[arg-type]  # its own ASGI types
        scope["state"]["prefix"] = prefix
        scope["path"] = below(prefix, scope["path"])

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


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """The app of a middleware that only changes scopes."""


async def _no_message() -> Message:
    raise AssertionError("nobody reads the request here")


async def _no_answer(message: Message) -> None:
    raise AssertionError("nobody answers here")


def led_below(location: str, prefix: str) -> str:
    """A `Location` as a path below the prefix: which host and scheme the client sees is the proxy's business.

    One that is relative already holds below any.
    """
    path = urlunsplit(urlsplit(location)._replace(scheme="", netloc=""))
    return prefix + path if path.startswith("/") else path


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
