"""Routes of API keys, `/keys`, for keys with the scope `admin`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

from anyio import to_thread
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.route import ScopedRouter, requires_scope
from service.auth.access import author
from service.dependencies import Paging, Parts, Runtime
from service.errors.exceptions import FirstKeyScope
from service.middleware.idempotency import Key as IdempotencyKey
from service.middleware.idempotency import body_fingerprint
from vault import audit
from vault.jobs.idempotency import Claim
from vault.keys import UNLIMITED, Key, KeyLimits, Scope, key_id_of
from vault.vault import Vault

router = ScopedRouter("admin")

MOST = 10**12
"""The highest limit that can be given: numbers in headers have at most 15 digits."""

Limit = Annotated[int, Field(ge=1, le=MOST)]


class KeyRequest(BaseModel):
    """A key to make; what is left out of its limits is that of the service's settings."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """Whose it is, for people."""
    scope: Scope
    expires_at: AwareDatetime | None = None
    """RFC 3339, with its offset; without it, the key is for good."""
    requests_per_minute: Limit | None = None
    images_per_day: Limit | None = None
    open_jobs: Limit | None = None

    @field_validator("expires_at")
    @classmethod
    def _check_future(cls, given: datetime | None) -> datetime | None:
        if given is not None and given <= datetime.now(UTC):
            raise PydanticCustomError("past", "is over already")
        return given

    def limits(self) -> KeyLimits:
        """The limits of the key itself."""
        return KeyLimits(self.requests_per_minute, self.images_per_day, self.open_jobs)


class KeyResponse(BaseModel):
    """One key without its secret."""

    id: str
    name: str
    scope: Scope
    state: Literal["valid", "expired", "revoked"]
    created_at: str
    expires_at: str | None
    requests_per_minute: int | None
    images_per_day: int | None
    open_jobs: int | None


class OwnKeyResponse(BaseModel):
    """What the key of a request may do; without one, what whoever asks may, where no key is asked for."""

    id: str | None
    name: str | None
    scope: Scope
    expires_at: str | None
    requests_per_minute: int | None
    images_per_day: int | None
    open_jobs: int | None


class NewKeyResponse(KeyResponse):
    """A key that was just made."""

    token: str
    """What is sent after the word Bearer; it is shown here and never again."""


class KeyPage(BaseModel):
    keys: list[KeyResponse]
    next: str | None


@router.get("/v1/keys", response_model=KeyPage)
@requires_scope("admin")
def index(page: Paging, parts: Parts) -> JSONResponse:
    """All keys there ever were, the oldest first, without their secrets."""
    known = parts.vault.keys.list()
    behind = [(key, revoked) for key, revoked in known if page.position is None or _position(key) > page.position]
    found, following = page.cut(behind[: page.fetch], lambda pair: _position(pair[0]))
    return JSONResponse({"keys": [key.shown(revoked) for key, revoked in found], "next": following})


@router.get("/v1/keys/self", response_model=OwnKeyResponse)
@requires_scope("predict")
def show_own(request: Request) -> OwnKeyResponse:
    """The key that asks, without its secret; `id` and `name` are null where none is asked for."""
    key: Key | None = request.state.key
    limits = UNLIMITED if key is None else key.limits
    return OwnKeyResponse(
        id=key and key.id,
        name=key and key.name,
        scope="admin" if key is None else key.scope,
        expires_at=key and key.expires_at,
        **asdict(limits),
    )


@router.get("/v1/keys/{key}", response_model=KeyResponse)
@requires_scope("admin")
def show(key: str, parts: Parts) -> JSONResponse:
    """One key without its secret."""
    found = parts.vault.keys.get(key)
    return JSONResponse(found.shown(parts.vault.keys.index().get(key, False)))


@router.post("/v1/keys", status_code=201, response_model=NewKeyResponse)
@requires_scope("admin", 409)
async def create(request: Request, body: KeyRequest, parts: Parts, key: IdempotencyKey) -> Response:
    """Make a key; its token is in this answer and nowhere else.

    The first key has the scope `admin`: with any other, nobody could make the next one. A request that is made again
    under its `Idempotency-Key` makes no other key, and is refused, since the token was shown.
    """

    async def run(claim: Claim | None) -> Response:
        if body.scope != "admin" and not await parts.access.has_keys():
            raise FirstKeyScope("While there is no key everybody may do everything; the first one has the scope admin.")
        make = partial(_create, parts.vault, body, author(request), claim)
        made, token = await to_thread.run_sync(make)
        await parts.reread_keys()
        headers = {"Location": f"/v1/keys/{made.id}", "Cache-Control": "no-store"}
        return JSONResponse({**made.shown(False), "token": token}, 201, headers=headers)

    return await parts.idempotency.once(request, key, await body_fingerprint(request), run, secret=True)


def _create(vault: Vault, body: KeyRequest, by: dict[str, Any], claim: Claim | None) -> tuple[Key, str]:
    key_id = None if claim is None else key_id_of(claim.id)
    made, token = vault.keys.create(body.name, body.scope, body.expires_at, body.limits(), key_id=key_id, by=by)
    vault.audit.record(audit.of_key(made, by))
    return made, token


@router.delete("/v1/keys/{key}", status_code=204)
@requires_scope("admin")
async def revoke(request: Request, key: str, parts: Parts) -> Response:
    """End a key, for good; other replicas notice within ENGRAM_KEY_SECONDS. Ending it again changes nothing."""
    await to_thread.run_sync(_revoke, parts, key, author(request))
    await parts.reread_keys()
    return Response(status_code=204)


def _revoke(parts: Runtime, key: str, by: dict[str, Any]) -> None:
    revocation = parts.vault.keys.revoke(key, by)
    if revocation.by is not None:
        parts.vault.audit.record(audit.of_revocation(revocation, revocation.by))


def _position(key: Key) -> str:
    return f"{key.created_at} {key.id}"
