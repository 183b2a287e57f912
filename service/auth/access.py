"""Access control: API keys, their scopes, and the origin of requests without a key."""

from __future__ import annotations

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
        key = None
        if await self._needs_key(request):
            key = await self._key(request)
            if not key.may(scope):
                raise Forbidden(f"This takes a key with the scope {scope}; this one has {key.scope}.", scope)
        else:
            self._check_origin(request)
        request.state.key = key
        request.state.caller = ANONYMOUS if key is None else key.id
        if key is not None:
            await self._quotas.count_request(request, key)

    async def reread(self) -> None:
        """Read the keys anew, after one was made or revoked here."""
        await self._key_cache.reread()

    async def has_keys(self) -> bool:
        """Whether there is a key, or ever was one; raises StoreUnavailable."""
        return await self._key_cache.any()

    async def _needs_key(self, request: Request) -> bool:
        """Whether a key is needed. One that is sent is checked, even if this replica does not know of any yet."""
        if self._policy == "auto":
            return parse(_token(request)) is not None or await self._key_cache.any()
        return self._policy == "required"

    async def _key(self, request: Request) -> Key:
        if "authorization" not in request.headers:
            raise Unauthorized(
                "This takes an API key, sent in the header Authorization after the word Bearer.", given=False
            )
        key = await self._key_cache.find(_token(request))
        if key is None:
            raise Unauthorized("This key is not known, or it was revoked, or its time is over.", given=True)
        return key

    def _check_origin(self, request: Request) -> None:
        """Refuse what a web page elsewhere makes a browser on this machine do.

        Without keys, being on this machine is all it takes; a page that the user visits must not profit from that,
        neither by its forms nor by a name of its own that leads to this machine (DNS rebinding).
        """
        # Behind a proxy there is the host that the client asked for, and the one that the proxy did.
        hosts = {_host(request.headers.get("host", "")), _host(getattr(request.state, "received_host", "localhost"))}
        if self._hosts and not all(host in self._hosts or is_loopback(host) for host in hosts):
            raise Misdirected("This is not the host that the request is meant for; ENGRAM_HOSTS names those it is.")
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        if request.method in _SAFE or origin in self._origins:
            return
        if site not in (None, "same-origin", "none") or (
            site is None and origin is not None and urlsplit(origin).netloc != request.headers.get("host")
        ):
            raise CrossSite("A web page of another site asks for this, and no key says that it may.")


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


def _token(request: Request) -> str:
    """The bearer token of a request; empty when there is none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""
