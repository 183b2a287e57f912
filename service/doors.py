"""Who is let in: every route says what a key must be allowed to do, and is not entered before that is settled."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import Request
from starlette.responses import Response

from service.documentation import VERSIONED, problem_answer, refusals
from service.errors import CrossSite, Forbidden, Misdirected, Unauthorized
from service.keyring import Keyring
from service.listening import is_loopback
from service.parameters import check, query_parameters
from service.quotas import Quotas
from vault.keys import Key, Scope, parse

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Policy = Literal["auto", "required", "off"]

ANYONE: Final = "anyone"
ANONYMOUS: Final = "anonymous"
"""`request.state.caller` where no key was asked for; otherwise that is the key's id."""

_DECLARED = "engram_door"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Declared:
    """What an endpoint says of its door."""

    scope: Scope | Literal["anyone"]
    refusals: tuple[int, ...]


def needs(scope: Scope | Literal["anyone"], *refusals: int) -> Callable[[Endpoint], Endpoint]:
    """Declare whom a route lets in: those whose keys have this scope or a higher one, or anyone at all.

    `refusals` are the statuses of problems that it may answer with, besides those that follow from its path and
    method; see `service.documentation`.
    """

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, Declared(scope, refusals))
        return endpoint

    return declare


class Door(APIRoute):
    """A route that is entered only by those whom its declaration lets in; one without a declaration cannot be made.

    Below `/v1` it is not entered with query parameters either that it does not have. A dependency would come too late:
    bodies are read before dependencies are asked.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        declared = getattr(endpoint, _DECLARED, None)
        if not isinstance(declared, Declared):
            raise TypeError(f"The route {path} does not say whom it lets in; see service.doors.needs.")
        self.scope = declared.scope
        methods = frozenset(options.get("methods") or ())
        usual = refusals(path, methods, guarded=declared.scope != ANYONE)
        problems = {status: problem_answer(status) for status in sorted({*usual, *declared.refusals})}
        options["responses"] = problems | (options.get("responses") or {})
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()
        scope = self.scope
        parameters = query_parameters(self.dependant) if self.path.startswith(VERSIONED) else None

        async def enter(request: Request) -> Response:
            if scope != ANYONE:
                doors = request.app.state.runtime.doors
                assert isinstance(doors, Doors), "the app has not started: run its lifespan"
                await doors.admit(request, scope)
            if parameters is not None:
                check([name for name, _ in request.query_params.multi_items()], parameters)
            return await inner(request)

        return enter


class Doors:
    """Lets requests in or not.

    Parameters
    ----------
    policy
        `required` asks for keys, `off` never does, `auto` does from the moment when there is one.
    hosts
        Names that a request without a key may be meant for; empty for any.
    """

    def __init__(self, keyring: Keyring, quotas: Quotas, policy: Policy, hosts: tuple[str, ...] = ()) -> None:
        self._keyring = keyring
        self._quotas = quotas
        self._policy = policy
        self._hosts = frozenset(host.lower() for host in hosts)

    async def admit(self, request: Request, scope: Scope) -> None:
        """Return if the request may do what `scope` may, and note in `request.state` whose it is.

        Sets `caller` to the key's id or `anonymous`, and `key` to the key or None.

        Raises
        ------
        Unauthorized, Forbidden
            There is no key, or it may not.
        Misdirected, CrossSite
            Without a key: a web page's doing rather than the user's.
        RateLimited
        StoreUnavailable
            The keys were never read.
        """
        key = None
        if await self._asks(request):
            key = await self._key(request)
            if not key.may(scope):
                raise Forbidden(f"This takes a key with the scope {scope}; this one has {key.scope}.", scope)
        else:
            self._check_origin(request)
        request.state.key = key
        request.state.caller = ANONYMOUS if key is None else key.id
        if key is not None:
            await self._quotas.count_request(request, key)

    async def _asks(self, request: Request) -> bool:
        """Whether a key is needed. One that is there is looked at, even if this replica does not know of any yet."""
        if self._policy == "auto":
            return parse(_token(request)) is not None or await self._keyring.any()
        return self._policy == "required"

    async def _key(self, request: Request) -> Key:
        if "authorization" not in request.headers:
            raise Unauthorized(
                "This takes an API key, sent in the header Authorization after the word Bearer.", given=False
            )
        key = await self._keyring.find(_token(request))
        if key is None:
            raise Unauthorized("This key is not known, or it was revoked, or its time is over.", given=True)
        return key

    def _check_origin(self, request: Request) -> None:
        """Refuse what a web page elsewhere makes a browser on this machine do.

        Without keys, being on this machine is all it takes; a page that the user looks at is not to profit from that,
        neither by its forms nor by a name of its own that leads to this machine (DNS rebinding).
        """
        host = _host(request.headers.get("host", ""))
        if self._hosts and host not in self._hosts and not is_loopback(host):
            raise Misdirected("This is not the host that the request is meant for; ENGRAM_HOSTS names those it is.")
        if request.method in _SAFE:
            return
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        if site not in (None, "same-origin", "none") or (
            site is None and origin is not None and urlsplit(origin).netloc != request.headers.get("host")
        ):
            raise CrossSite("A web page of another site asks for this, and no key says that it may.")


def _host(header: str) -> str:
    """A Host header without its port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _token(request: Request) -> str:
    """The bearer token of a request; empty when there is none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def scopes(app: FastAPI) -> dict[tuple[str, str], Scope | Literal["anyone"] | None]:
    """Whom each route of an app lets in, by method and path; None where there is no door at all."""
    return {
        (method, str(getattr(context.original_route, "path", context.original_route))): getattr(
            context.original_route, "scope", None
        )
        for context in iter_route_contexts(app.routes)
        for method in getattr(context.original_route, "methods", None) or ["any"]
    }
