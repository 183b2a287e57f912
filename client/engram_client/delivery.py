"""Delivery of one call, without input or output: when it is sent again, what its answer means."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

from engram_client.bodies import Body
from engram_client.errors import Refused, UnexpectedAnswer, Unreachable, family

Result = TypeVar("Result")

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 8.0
_BUSY = frozenset({429, 502, 503, 504})
_OF_THE_MOMENT = frozenset({"conflict", "idempotency_in_progress"})
"""Codes of refusals with 409 that end by themselves."""
_LASTING = frozenset({"architecture_unavailable"})
"""Codes of answers with 503 that do not: somebody has to install something first."""


@dataclass(frozen=True)
class Patience:
    """How long a call is tried again before its failure is raised."""

    seconds: float = 60.0
    """Since the first failure, while the service is busy, limits are reached, or answers break off; 0 never tries
    again."""
    unreachable_seconds: float = 5.0
    """The same, while nobody listens at the address."""
    on_wait: Callable[[float, str], None] | None = None
    """Called before each pause, with its seconds and the reason."""


@dataclass(frozen=True)
class HttpAnswer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The document in it; raises UnexpectedAnswer where it is none."""
        try:
            return json.loads(self.content)
        except ValueError as error:
            raise UnexpectedAnswer("The answer is not JSON: is this Engram's address?", self.status) from error

    @property
    def retry_after(self) -> float | None:
        """Seconds that the service asks to wait."""
        given = self.headers.get("retry-after", "")
        return float(given) if given.isdecimal() else None

    def error(self) -> Refused | UnexpectedAnswer:
        """What a status other than success means."""
        try:
            problem = json.loads(self.content)
            code = problem["code"]
        except (ValueError, TypeError, KeyError):
            return UnexpectedAnswer(
                f"The answer has the status {self.status}, and does not come from Engram.", self.status
            )
        return family(str(code), self.status)(problem, self.status, self.retry_after)


@dataclass(frozen=True)
class Call(Generic[Result]):
    """Something to ask the service for, and how to read what it answers."""

    method: str
    path: str
    read: Callable[[HttpAnswer], Result]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Body | None = None
    keyed: bool = False
    """Whether it takes an idempotency key, under which it can be made again."""
    accepts: tuple[int, ...] = ()
    """Statuses beside 2xx that are answers to it."""
    gone_is_done: bool = False
    """Whether, made again, it is done where there is nothing any more."""


class Delivery(Generic[Result]):
    """One call on its way: sent once or several times, always as the same request."""

    def __init__(self, call: Call[Result], patience: Patience, key: str | None = None) -> None:
        self._call = call
        self._patience = patience
        self._key = (key or uuid.uuid4().hex) if call.keyed else None
        self._failing_since: float | None = None
        self._attempts = 0
        self._perhaps_done = False
        """Whether an attempt may have been carried out without our hearing of it."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the request, the key of the client not among them."""
        headers = {} if self._key is None else {"Idempotency-Key": self._key}
        if (body := self._call.body) is not None:
            headers["Content-Type"] = body.content_type
            if body.length is not None:
                headers["Content-Length"] = str(body.length)
        return headers

    @property
    def query(self) -> dict[str, str]:
        """What the address asks for; what is None is left out."""
        given = ((name, value) for name, value in self._call.query.items() if value is not None)
        return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given}

    def broken(self, error: httpx.RequestError) -> float:
        """Seconds to wait before it is sent again after no answer came; raises Unreachable at the end of patience."""
        nobody = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        never = isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError | httpx.TooManyRedirects)
        self._perhaps_done |= not nobody
        pause = self._pause(0 if never else self._patience.unreachable_seconds if nobody else self._patience.seconds)
        why = f"The service {'cannot be reached' if nobody else 'gives no answer'}: {error or type(error).__name__}."
        if pause is None:
            raise Unreachable(why) from error
        self._tell(pause, why)
        return pause

    def pause(self, answer: HttpAnswer) -> float | None:
        """Seconds to wait before it is sent again, or None where `answer` is the answer."""
        error = answer.error() if answer.status in (409, 503) else None
        code = error.code if isinstance(error, Refused) else None
        if answer.status == 409:
            wait = code in _OF_THE_MOMENT
        else:
            wait = answer.status in _BUSY and answer.status not in self._call.accepts and code not in _LASTING
        if not wait:
            return None
        pause = self._pause(self._patience.seconds, answer.retry_after)
        if pause is not None:
            self._tell(pause, str(answer.error()))
        return pause

    def result(self, answer: HttpAnswer) -> Result:
        """What the answer says; raises Refused or UnexpectedAnswer."""
        done = 200 <= answer.status < 300 or answer.status in self._call.accepts
        if not done and not (answer.status == 404 and self._call.gone_is_done and self._perhaps_done):
            raise answer.error()
        return self._call.read(answer)

    def _tell(self, pause: float, why: str) -> None:
        if self._patience.on_wait is not None:
            self._patience.on_wait(pause, why)

    def _pause(self, patience: float, asked: float | None = None) -> float | None:
        """The next pause: what the service asks for, else twice the last one and by chance up to half less."""
        usual = min(_FIRST_PAUSE * 2**self._attempts, _LONGEST_PAUSE) * random.uniform(0.5, 1)
        pause = usual if asked is None else asked
        self._attempts += 1
        now = time.monotonic()
        # Not since it began: an upload that breaks off after an hour is worth a second one.
        if self._failing_since is None:
            self._failing_since = now
        return pause if patience > 0 and now - self._failing_since + pause <= patience else None
