"""A connection: bytes to requests, one answered after the other."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import httptools

from beam_score.pipeline.serve.answering.answer import refusal
from beam_score.pipeline.serve.front.requests import Refusal, request_id
from beam_score.pipeline.serve.http1.exchange import CLOSE, LINES, Exchange

App = Callable[[Exchange], None]
"""Called once the head of a request has come; it answers, at once or later, or reads the body first."""

_LINGER_S, _GRACE_S = 1.0, 0.25
_REFUSAL = b"content-type: application/json\r\ncontent-length: %d\r\n%b" + CLOSE + b"\r\n"
_OF_BODY = (b"content-length", b"transfer-encoding")


@dataclasses.dataclass(frozen=True)
class ClientLimits:
    """Limits of a client.

    Attributes:
      connections: at the same time, of all clients.
      head_bytes: of the request line and the headers.
      head_s: seconds for the headers, from their first byte; and for that byte, after the connection is made.
      body_s: seconds for a body, and to read an answer.
      idle_s: seconds between two requests.
    """

    connections: int = 1000
    head_bytes: int = 16 << 10
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 75.0


class _TooLarge(Exception):
    """The headers are too large."""


class Connection(asyncio.Protocol):
    """A connection of a client.

    Args:
      app: the application.
      all_: the open connections; this one adds and removes itself.
      limits: of its client.

    Attributes:
      is_closed: whether the client has gone.
      is_ending: set for no further request to be accepted.
    """

    def __init__(self, app: App, all_: set[Connection], limits: ClientLimits):
        self._app, self._all, self._limits = app, all_, limits
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: collections.deque[Exchange] = collections.deque()
        self._reading: Exchange | None = None  # its body has not come yet
        self._goes_on: Exchange | None = None
        self._head_bytes, self._size, self._url, self._headers = 0, 0, b"", dict[bytes, bytes]()
        self._may_be_large = self._is_paused = self._is_refused = self._lingers = False
        self._is_writable = self._is_new = True
        self._since = self._loop.time()
        self.is_closed = self.is_ending = False

    # Of asyncio.Protocol.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._all.add(self)
        if len(self._all) > self._limits.connections:
            self._refuse(503, f"more than {self._limits.connections:,} connections at the same time")

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        self._all.discard(self)
        if self._exchanges:
            self._exchanges[0].gone()
            self._exchanges.clear()
        self._reading = self._goes_on = None

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        if self._reading is None:
            if not self._head_bytes:
                self._since = self._loop.time()
            self._head_bytes += len(data)
        self._may_be_large = max(self._head_bytes, len(data)) > self._limits.head_bytes
        try:
            while data:
                try:
                    self._parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    data = self._not_upgraded() + data[upgrade.args[0] :]
            if self._reading is None and self._head_bytes > self._limits.head_bytes:
                raise _TooLarge
        except (httptools.HttpParserError, _TooLarge) as error:
            if isinstance(error, _TooLarge) or isinstance(error.__context__, _TooLarge):
                self._refuse(431, f"the headers have more than {self._limits.head_bytes:,} bytes")
            else:
                self._refuse(400, "this is not a request of HTTP/1.1")
        self._next()

    def pause_writing(self) -> None:
        self._is_writable, self._since = False, self._loop.time()

    def resume_writing(self) -> None:
        self._is_writable = True
        self._next()

    # Of httptools.

    def on_message_begin(self) -> None:
        self._is_new = False
        self._url, self._size, self._headers = b"", 0, {}
        if not self._head_bytes:  # it follows another request in the same piece: how far in is not known
            self._head_bytes, self._since = 1, self._loop.time()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not None:  # a trailer, which follows a body
            return
        self._size += len(name) + len(value) + 4
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._goes_on is not None:
            self._reading, self._goes_on = self._goes_on, None
            return
        if self._may_be_large and len(self._url) + self._size > self._limits.head_bytes:
            raise _TooLarge
        path, _, query = self._url.partition(b"?")
        if path[:1] != b"/":
            path = httptools.parse_url(self._url).path or b"/"
        parser = self._parser
        method, version = parser.get_method().decode(), parser.get_http_version()
        keeps_alive = parser.should_keep_alive()
        self._reading = Exchange(self, method, path.decode("latin-1"), query, self._headers, version, keeps_alive)
        self._since = self._loop.time()
        self._exchanges.append(self._reading)
        if len(self._exchanges) > 1:
            self._pause_reading()

    def on_body(self, body: bytes) -> None:
        if self._reading is not None and self._reading.add(body):
            self._pause_reading()

    def on_message_complete(self) -> None:
        if self._reading is not None:
            self._reading.complete = True
        self._reading, self._head_bytes = None, 0

    # Of its own.

    def _not_upgraded(self) -> bytes:
        """Return a head for the rest of a request to switch to another protocol, as Java's client sends it, h2c. The
        request is answered in this one. httptools has taken it for complete, and its body for the other protocol."""
        self._parser = httptools.HttpRequestParser(self)
        body = [b"%b: %b\r\n" % header for header in self._headers.items() if header[0] in _OF_BODY]
        if not body:
            return b""
        self._goes_on = self._exchanges[-1]
        self._goes_on.complete = False
        return b"POST / HTTP/1.1\r\n" + b"".join(body) + b"\r\n"

    def _next(self) -> None:
        """Begin with the next request, or continue with it if more of it has come."""
        if not self._exchanges or self.is_closed or self._lingers:
            return
        exchange = self._exchanges[0]
        if exchange.begun:
            exchange.run(exchange.proceed)
        elif self._is_writable:
            exchange.begun = True
            exchange.run(self._app, exchange)

    @property
    def has_more(self) -> bool:
        """See `Wire`."""
        return len(self._exchanges) > 1 and self._exchanges[1].complete

    def end_exchange(self) -> None:
        """Continue with the next request: the first one is over."""
        if self.is_closed:
            return
        self._since = self._loop.time()
        exchange = self._exchanges.popleft()
        if not exchange.answered:
            self._exchanges.clear()
            self._refuse(500, "the request failed")
        elif not exchange.keeps_alive or (self.is_ending and not self._exchanges):
            self._close()
        else:
            if len(self._exchanges) < 2:
                self.resume_reading()
            if self._exchanges:
                self._loop.call_soon(self._next)  # other connections come first

    def write(self, data: bytes) -> None:
        """Write, unless the client has gone."""
        if not self.is_closed:
            self._transport.write(data)

    def resume_reading(self) -> None:
        """Read again, if it was paused."""
        if self._is_paused and not self.is_closed:
            self._is_paused = False
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is not a request, after those that came before it, and close."""
        self._is_refused = True
        if self._reading is not None:  # its application answers
            self._reading.refusal = Refusal(status, message)
        if self._exchanges:
            self._exchanges[-1].keeps_alive = False
            self._pause_reading()
            return
        body = refusal(status, message, request_id("")).body
        head = _REFUSAL % (len(body), b"retry-after: 1\r\n" if status == 503 else b"")
        self.write(LINES[status] + head + body)
        self._close()

    def _close(self) -> None:
        """Close once all is written. What the client still sends is read for a while, and dropped: otherwise the
        system could drop the answer."""
        self._exchanges.clear()
        if self._reading is None and not self._is_refused:
            self._transport.close()
            return
        self._lingers = True
        self.resume_reading()
        self._loop.call_later(_LINGER_S, self._transport.close)

    def end(self) -> None:
        """Accept no further request, and close once those that were accepted are answered."""
        self.is_ending = True
        # The first request of a new connection, or the rest of its head, may be on its way.
        self._loop.call_later(_GRACE_S if self._is_new or self._head_bytes else 0, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self._exchanges:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def check(self, now: float) -> None:
        """Close if the client is too slow."""
        seconds, limits = now - self._since, self._limits
        if not self._is_writable:
            if seconds > limits.body_s:
                self._transport.abort()
        elif self._reading is not None and not self._is_paused:
            if seconds > limits.body_s:
                self._refuse(408, f"the body took more than {limits.body_s:g} s")
                self._next()
        elif self._head_bytes and seconds > limits.head_s:
            self._refuse(408, f"the headers took more than {limits.head_s:g} s")
        elif not self._exchanges and seconds > (limits.head_s if self._is_new else limits.idle_s):
            self._transport.close()
