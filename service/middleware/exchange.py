"""One request and its answer, on their way through the service."""

from __future__ import annotations

from starlette.types import Message, Receive, Scope, Send

from service.errors.problem_details import REQUEST_ID_HEADER
from service.middleware.body_limits import BodyLimits
from service.middleware.request_log import request_id
from service.middleware.response_headers import completed

_ID = REQUEST_ID_HEADER.lower().encode()


class Exchange:
    """What of a request was received, and of its answer sent, so far.

    `receive` gives the body within its limits, unpacked; `send` completes the headers.
    """

    __slots__ = ("_body", "_scope", "_send", "identity", "sent", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, bodies: BodyLimits) -> None:
        self.identity = request_id(scope["headers"])
        self.status: int | None = None
        """Of the answer, once it has begun."""
        self.sent = 0
        """Bytes of the answer's body."""
        self._scope = scope
        self._send = send
        self._body = bodies.of(scope, receive)

    @property
    def received(self) -> int:
        """Bytes of the request's body, as they were sent."""
        return self._body.received

    async def receive(self) -> Message:
        """The next message of the client; raises what is wrong with the body, or with its not coming."""
        return await self._body.receive()

    async def send(self, message: Message) -> None:
        """Send a message to the client."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            state = self._scope["state"]
            headers = completed(list(message.get("headers", ())), state.get("uses", ()), state["prefix"])
            headers.append((_ID, self.identity.encode()))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        await self._send(message)

    def close(self) -> None:
        """Give back the room that the body took."""
        self._body.close()
