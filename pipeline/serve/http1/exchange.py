"""One request and its answer."""

from __future__ import annotations

import http
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from beam_score.pipeline.serve.front.requests import Refusal

MOST_UNREAD_BYTES = 64 << 10
"""Of a body that nobody wants yet, before reading from its client is paused."""

CLOSE = b"connection: close\r\n"
LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in http.HTTPStatus}
"""The first line of an answer, by its status."""

_log = logging.getLogger(__name__)


class Wire(Protocol):
    """The connection, as far as an exchange uses it.

    Attributes:
      is_ending: whether no further request is accepted.
      has_more: whether another whole request waits behind the first one.
    """

    is_ending: bool

    @property
    def has_more(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def resume_reading(self) -> None: ...

    def end_exchange(self) -> None: ...


class Reader(Protocol):
    """The part of an application that takes the body of a request: either `body` or `refuse` is called, and `gone` at
    any time before the answer."""

    def body(self, data: bytes) -> None:
        """Take the whole body."""

    def refuse(self, error: Refusal) -> None:
        """Take the reason why the body is not read to its end."""

    def gone(self) -> None:
        """Answer no more: the client has gone."""


class Exchange:
    """One request and its answer.

    Args:
      wire: the connection.
      method, path, query: of the request line, the path as it was sent.
      headers: by their names in lower case; of several with the same name, the last.
      version: of HTTP.
      keeps_alive: whether the client wants to send another request.

    Attributes:
      method, path, query, headers, version, keeps_alive: see above.
      begun: whether the application was called.
      complete: whether the whole request has come.
      refusal: set once the rest of the body is not waited for.
      answered: whether the answer is written.
    """

    def __init__(
        self,
        wire: Wire,
        method: str,
        path: str,
        query: bytes,
        headers: Mapping[bytes, bytes],
        version: str,
        keeps_alive: bool,
    ):
        self.method, self.path, self.query, self.headers = method, path, query, headers
        self.version, self.keeps_alive = version, keeps_alive
        self.begun = self.complete = self.answered = False
        self.refusal: Refusal | None = None
        self._wire = wire
        self._expects_continue = headers.get(b"expect", b"").lower() == b"100-continue" and version != "1.0"
        self._parts: list[bytes] = []
        self._size, self._most = 0, 0
        self._reader: Reader | None = None
        self._is_read = False

    @property
    def is_followed(self) -> bool:
        """True if another whole request waits behind this one."""
        return self._wire.has_more

    def add(self, part: bytes) -> bool:
        """Add a part of the body; return whether reading should be paused."""
        if self.answered:
            return False
        self._parts.append(part)
        self._size += len(part)
        return self._reader is None and self._size > MOST_UNREAD_BYTES

    def read(self, reader: Reader, most: int) -> None:
        """Let a reader have the body.

        Args:
          most: bytes of the body; one with more is refused.
        """
        self._reader, self._most = reader, most
        self.proceed()

    def proceed(self) -> None:
        """Let the reader have the body if it is whole, or refused."""
        if (reader := self._reader) is None or self._is_read:
            return
        if self._size > self._most:
            self.refusal = Refusal(413, f"the body has more bytes than serve.limits.body {self._most:,}")
        if self.refusal is not None:
            self._is_read = True
            reader.refuse(self.refusal)
        elif self.complete:
            self._is_read = True
            body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            reader.body(body)
        else:
            if self._expects_continue and not self._parts:
                self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._expects_continue = False
            self._wire.resume_reading()

    def run(self, step: Callable[..., object], *arguments: object) -> None:
        """Call a step of the application; if it raises, answer so and close the connection."""
        try:
            step(*arguments)
        except Exception:
            _log.exception("%s %s failed", self.method, self.path)
            self.gone()
            if not self.answered:
                self._wire.end_exchange()

    def gone(self) -> None:
        """Tell the reader that the client has gone, if it is not answered."""
        reader, self._reader = self._reader, None
        if reader is not None and not self.answered:
            reader.gone()

    def answer(self, status: int, headers: bytes, body: bytes) -> None:
        """Write the answer.

        Args:
          headers: whole lines; without Connection.
        """
        self.answered, self._reader = True, None  # which has the body, and this: Python would find that much later
        self._parts.clear()
        if not self.complete or (self._wire.is_ending and not self.is_followed):
            self.keeps_alive = False
        more = b""
        if not self.keeps_alive:
            more = CLOSE
        elif self.version == "1.0":
            more = b"connection: keep-alive\r\n"
        line = LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        self._wire.write(b"%b%b%b\r\n%b" % (line, headers, more, b"" if self.method == "HEAD" else body))
        self._wire.end_exchange()
