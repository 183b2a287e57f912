"""Access control: API keys, their scopes, and the origin of requests without a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from starlette.requests import Request

from service.auth.exposure import is_loopback
from service.auth.key_cache import KeyCache
from service.auth.quotas import Quotas
from service.errors.exceptions import CrossSite, Forbidden, Misdirected, Unauthorized
from vault.keys import Key, Scope, parse

Policy = Literal["auto", "required", "off"]

ANYONE: Final = "anyone"
ANONYMOUS: Final = "anonymous"
"""`request.state.caller` where no key was asked for; otherwise that is the key's id."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = frozenset({b"authorization", b"host", b"origin", b"sec-fetch-site"})
"""All that is looked at."""

_Given = Mapping[bytes, str]
"""By name, what a request has of `_HEADERS`."""


class AccessControl:
    """Access control of all routes; each says which scope it takes, and calls `admit` before anything is read.

    Parameters
    ----------
    policy
        `required` asks for keys, `off` never does, `auto` does from the moment when there is one.
    hosts
        Names that a request without a key may be meant for; empty for any.
    origins
        Whose pages may ask without a key where none is needed; that all may read answers (`*`) does not say so.
    """

    def __init__(
        self,
        key_cache: KeyCache,
        quotas: Quotas,
        policy: Policy,
        hosts: tuple[str, ...] = (),
        origins: tuple[str, ...] = (),
    ) -> None:
        self._key_cache = key_cache
        self._quotas = quotas
        self._policy = policy
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origins)

    async def admit(self, request: Request, scope: Scope) -> None:
        """Return if the request may do what `scope` may, and note in `request.state` whose it is.

        Sets `caller` to the key's id or `anonymous`, and `key` to the key or None.

        Raises
        ------
        Unauthorized, Forbidden
            There is no key, or it may not.
        Misdirected, CrossSite
            Without a key: a web page seems to ask rather than the user.
        RateLimited
        StoreUnavailable
            The keys were never read.
        """
        key, given, state = None, _given(request), request.state
        if await self._needs_key(given):
            key = await self._key(given)
            if not key.may(scope):
                raise Forbidden(f"This takes a key with the scope {scope}; this one has {key.scope}.", scope)
        else:
            self._check_origin(request.method, given, getattr(state, "received_host", "localhost"))
        state.key = key
        state.caller = ANONYMOUS if key is None else key.id
        if key is not None:
            await self._quotas.count_request(request, key)

    async def reread(self) -> None:
        """Read the keys anew, after one was made or revoked here."""
        await self._key_cache.reread()

    async def has_keys(self) -> bool:
        """Whether there is a key, or ever was one; raises StoreUnavailable."""
        return await self._key_cache.any()

    async def _needs_key(self, given: _Given) -> bool:
        """Whether a key is needed. One that is sent is checked, even if this replica does not know of any yet."""
        if self._policy == "auto":
            return (bool(token := _token(given)) and parse(token) is not None) or await self._key_cache.any()
        return self._policy == "required"

    async def _key(self, given: _Given) -> Key:
        if b"authorization" not in given:
            raise Unauthorized(
                "This takes an API key, sent in the header Authorization after the word Bearer.", given=False
            )
        key = await self._key_cache.find(_token(given))
        if key is None:
            raise Unauthorized("This key is not known, or it was revoked, or its time is over.", given=True)
        return key

    def _check_origin(self, method: str, given: _Given, received_host: str) -> None:
        """Refuse what a web page elsewhere makes a browser on this machine do.

        Without keys, being on this machine is all it takes; a page that the user visits must not profit from that,
        neither by its forms nor by a name of its own that leads to this machine (DNS rebinding).
        """
        # Behind a proxy there is the host that the client asked for, and the one that the proxy did.
        if self._hosts and not (self._meant(given.get(b"host", "")) and self._meant(received_host)):
            raise Misdirected("This is not the host that the request is meant for; ENGRAM_HOSTS names those it is.")
        site, origin = given.get(b"sec-fetch-site"), given.get(b"origin")
        if method in _SAFE or origin in self._origins:
            return
        if site not in (None, "same-origin", "none") or (
            site is None and origin is not None and urlsplit(origin).netloc != given.get(b"host")
        ):
            raise CrossSite("A web page of another site asks for this, and no key says that it may.")

    def _meant(self, header: str) -> bool:
        """Whether a Host header names this machine, or a host that requests are meant for."""
        host = _host(header)
        return host in self._hosts or is_loopback(host)


def author(request: Request) -> dict[str, Any]:
    """Who makes an admitted request, as the audit log names them (`vault.audit`)."""
    key = getattr(request.state, "key", None)
    if not isinstance(key, Key):
        return {"kind": ANONYMOUS, "id": None, "name": None}
    return {"kind": "key", "id": key.id, "name": key.name}


def _host(header: str) -> str:
    """A Host header without its port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _given(request: Request) -> _Given:
    """What there is of `_HEADERS`; of one that is given twice the first."""
    found: dict[bytes, str] = {}
    for name, value in request.scope["headers"]:
        if name in _HEADERS and name not in found:
            found[name] = value.decode("latin-1")
    return found


def _token(given: _Given) -> str:
    """The bearer token of a request; empty when there is none."""
    kind, _, token = given.get(b"authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""
