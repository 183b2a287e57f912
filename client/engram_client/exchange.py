"""Exchange of requests and answers with one service, for programs that wait for each answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import httpx

from engram_client.delivery import Call, Delivery, HttpAnswer, Patience
from engram_client.records import ListPage
from engram_client.settings import ClientSettings

Result = TypeVar("Result")
Item = TypeVar("Item")
Opened = TypeVar("Opened", bound="CallExchange")


class CallExchange:
    """Connections to a service over which calls are made; `Client` says which there are."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        patience: Patience | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.settings = ClientSettings.given(url, key, timeout, patience)
        self._http = httpx.Client(
            base_url=self.settings.url,
            headers=self.settings.headers,
            timeout=self.settings.timeouts,
            transport=transport,
        )

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.url!r})"

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def run(self, call: Call[Result], idempotency_key: str | None = None) -> Result:
        """Make a call, again if need be, and return what it answers."""
        delivery = Delivery(call, self.settings.patience, idempotency_key)
        while True:
            content = None if call.body is None else call.body.chunks()
            try:
                response = self._http.request(
                    call.method, call.path, params=delivery.query, headers=delivery.headers, content=content
                )
            except httpx.RequestError as error:
                pause = delivery.broken(error)
            else:
                answer = HttpAnswer(response.status_code, response.headers, response.content)
                asked = delivery.pause(answer)
                if asked is None:
                    return delivery.result(answer)
                pause = asked
            time.sleep(pause)

    @contextmanager
    def streaming(self, path: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """An answer that is read while it comes."""
        with self._http.stream("GET", path, headers=dict(headers), timeout=self.settings.stream_timeouts) as response:
            yield response

    def _all(self, page: Callable[[str | None], Call[ListPage[Item]]], most: int | None = None) -> list[Item]:
        """All entries of a list, or the first of them."""
        found: list[Item] = []
        after: str | None = None
        while True:
            answered = self.run(page(after))
            found += answered.items
            after = answered.next
            if after is None or (most is not None and len(found) >= most):
                return found[:most]
