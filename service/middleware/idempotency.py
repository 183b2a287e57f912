"""Header `Idempotency-Key`: requests made again are done once and answered as the first time."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, Header
from starlette.requests import Request
from starlette.responses import Response

from service.errors import problem_details
from service.errors.exceptions import IdempotencyInProgress, IdempotencyKeyReused, InvalidIdempotencyKey
from vault.coordination.leases import Lease
from vault.errors import Conflict, RedisUnavailable
from vault.jobs.idempotency import Claim, IdempotencyRecords, RecordedAnswer
from vault.vault import Vault

log = logging.getLogger("engram.service")

LONGEST_KEY = 255
REPLAYED = "Idempotent-Replayed"
"""Header of an answer that was given before."""

_UNKEPT = frozenset({401, 403, 408, 429})
"""Statuses of refusals that are due to the caller or the moment, and not to what was asked."""

Run = Callable[[Claim | None], Awaitable[Response]]


def _key(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="1 to 255 visible ASCII characters; the same request under the same key is done once.",
            json_schema_extra={"pattern": r"^[!-~]{1,255}$"},
        ),
    ] = None,
) -> str | None:
    """The key of a request; raises InvalidIdempotencyKey."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1:
        raise InvalidIdempotencyKey("There is more than one Idempotency-Key.")
    if not 0 < len(keys[0]) <= LONGEST_KEY or not all("!" <= character <= "~" for character in keys[0]):
        raise InvalidIdempotencyKey(f"An Idempotency-Key has 1 to {LONGEST_KEY} visible ASCII characters.")
    return keys[0]


Key = Annotated[str | None, Depends(_key)]


def caller(request: Request) -> str:
    """The caller: the id of the API key where there is one. Each caller has idempotency keys of their own."""
    return str(getattr(request.state, "caller", None) or "anonymous")


def fingerprint(request: Request, parts: Mapping[str, str]) -> str:
    """SHA-256 of what is asked: method, path, query and body, of which `parts` says what matters."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    asked = {
        "method": request.method,
        "path": request.url.path,
        "query": request.url.query,
        "media": media,
        "parts": dict(parts),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


async def body_fingerprint(request: Request) -> str:
    """The same of a request whose body is small."""
    return fingerprint(request, {"body": hashlib.sha256(await request.body()).hexdigest()})


class Idempotency:
    """Answers by idempotency key: each request is done once, as far as its caller gives it a key.

    The truth is in the store (`vault.jobs.idempotency`): whatever happens to Redis or to this process, two requests
    under one key work under one id, and the first answer kept is the answer of both. Redis only keeps the second from
    working in vain while the first is being answered.
    """

    def __init__(self, vault: Vault) -> None:
        self._leases = vault.leases
        self._records = IdempotencyRecords(vault.objects)

    async def once(self, request: Request, key: str | None, asked: str, run: Run, *, secret: bool = False) -> Response:
        """The answer of `run`, or the one that was given before to the same request under the same key.

        An answer is kept unless it says that this server, this moment or this caller is to blame (5xx, 401, 403, 408,
        429). So are refusals: what was refused under a key stays refused under it.

        Parameters
        ----------
        asked
            The request's `fingerprint`.
        run
            Does it, under the claim's id: what it finds done under that id it does not do again. Called without a
            claim where there is no key.
        secret
            Whether the answer is not to be kept; `run` is then called again, and answers otherwise.

        Raises
        ------
        IdempotencyKeyReused
            Something else was asked under this key.
        IdempotencyInProgress
            The same is being done right now.
        """
        if key is None:
            return await run(None)
        name = _name(caller(request), key)
        if (given := await self._given(name, asked)) is not None:
            return given
        async with self._alone(name, asked):
            # The one that had the lease until now may have been answered.
            if (given := await self._given(name, asked)) is not None:
                return given
            claim = await to_thread.run_sync(self._records.claim, name, asked)
            if claim.fingerprint != asked:
                raise _reused()
            response = await _answered(run, claim)
            if secret or response.status_code >= 500 or response.status_code in _UNKEPT:
                return response
            answer = RecordedAnswer(asked, response.status_code, _headers(response), bytes(response.body).decode())
            kept = await to_thread.run_sync(self._records.keep, name, answer)
            return response if kept is answer else _response(kept)

    async def _given(self, name: str, asked: str) -> Response | None:
        """The answer that was given before."""
        answer = await to_thread.run_sync(self._records.answer, name)
        if answer is None:
            return None
        if answer.fingerprint != asked:
            raise _reused()
        return _response(answer)

    @asynccontextmanager
    async def _alone(self, name: str, asked: str) -> AsyncIterator[None]:
        """A block in which nobody else works on this key, as far as Redis knows."""
        try:
            lease = await to_thread.run_sync(self._leases.acquire, f"{name}:idempotency", "service")
        except RedisUnavailable as error:
            log.warning("work under a key goes on without Redis: %s", error)
            yield
            return
        if lease is None:
            claim = await to_thread.run_sync(self._records.claimed, name)
            raise _reused() if claim is not None and claim.fingerprint != asked else IdempotencyInProgress()
        await to_thread.run_sync(lease.__enter__)
        try:
            yield
        finally:
            await to_thread.run_sync(_leave, lease)


def _leave(lease: Lease) -> None:
    lease.__exit__(None, None, None)


def _name(*scope: str) -> str:
    return hashlib.sha256("\0".join(scope).encode()).hexdigest()


def _reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused("Something else was asked under this Idempotency-Key.")


async def _answered(run: Run, claim: Claim) -> Response:
    """What `run` answers; a refusal of what was asked is an answer too."""
    try:
        return await run(claim)
    except Exception as error:
        status = problem_details.status_of(error)
        if status is None or status >= 500 or status in _UNKEPT or isinstance(error, Conflict):
            raise
        return problem_details.answer(problem_details.describe(error))


def _headers(response: Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name != "content-length"}


def _response(answer: RecordedAnswer) -> Response:
    return Response(answer.body, answer.status, {**answer.headers, REPLAYED: "true"})
