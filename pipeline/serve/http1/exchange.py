"""One request and its answer, as an ASGI application calls them."""

from __future__ import annotations

import asyncio
import http
from collections.abc import MutableMapping
from typing import Any, Protocol

from beam_score.pipeline.serve.front.requests import Refusal

Message = MutableMapping[str, Any]

MOST_UNREAD_BYTES = 64 << 10
"""Of a body, before reading from its client is paused."""

CLOSE = b"connection: close\r\n"
LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in http.HTTPStatus}
"""The first line of an answer, by its status."""


class Wire(Protocol):
    """The connection, as far as an exchange uses it.

    Attributes:
      is_closed: whether the client has gone.
      is_ending: whether no further request is accepted.
    """

    is_closed: bool
    is_ending: bool

    def write(self, data: bytes) -> None: ...

    def resume_reading(self) -> None: ...


class Exchange:
    """One request and its answer.

    Args:
      wire: the connection.
      scope: of ASGI.
      keeps_alive: whether the client wants to send another request.
      expects_continue: whether the client waits for permission to send the body.

    Attributes:
      scope: see above.
      complete: whether the whole request has come.
      refusal: set once the rest of the body is not waited for.
      keeps_alive: whether another request may follow.
      answered: whether the answer is written.
    """

    def __init__(self, wire: Wire, scope: Message, keeps_alive: bool, expects_continue: bool):
        self.scope, self.keeps_alive = scope, keeps_alive
        self.complete = self.answered = False
        self.refusal: Refusal | None = None
        self._wire, self._expects_continue = wire, expects_continue
        self._parts: list[bytes] = []
        self._unread = 0
        self._more: asyncio.Future[None] | None = None
        self._status, self._headers = 0, list[tuple[bytes, bytes]]()

    def add(self, part: bytes) -> bool:
        """Add a part of the body; return whether reading should be paused."""
        if not self.answered:
            self._parts.append(part)
            self._unread += len(part)
            self.wake()
        return self._unread > MOST_UNREAD_BYTES

    def wake(self) -> None:
        """Let `receive` look again."""
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    async def receive(self) -> Message:
        """Return the next part of the body. Raises Refusal: it takes too long, or is not valid."""
        while not self._parts and not self.complete:
            if self._wire.is_closed:
                return {"type": "http.disconnect"}
            if self.refusal is not None:
                raise self.refusal
            if self._expects_continue:
                self._expects_continue = False
                self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._wire.resume_reading()
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._unread = 0
        return {"type": "http.request", "body": body, "more_body": not self.complete}

    async def send(self, message: Message) -> None:
        """Take the head of the answer, then its whole body, and write both."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], message["headers"]
            return
        parts = [LINES.get(self._status) or b"HTTP/1.1 %d \r\n" % self._status]
        for name, value in self._headers:
            if name == b"connection":
                self.keeps_alive = False
            else:
                parts += (name, b": ", value, b"\r\n")
        if not self.complete or self._wire.is_ending:
            self.keeps_alive = False
        if not self.keeps_alive:
            parts.append(CLOSE)
        elif self.scope["http_version"] == "1.0":
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        if self.scope["method"] != "HEAD":
            parts.append(message["body"])
        self.answered = True
        self._parts.clear()
        self._wire.write(b"".join(parts))
