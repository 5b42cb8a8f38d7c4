"""The connections of HTTP, and how they end: what uvicorn does not bound is bounded here.

A client may open a connection and send nothing, send a header of any size, or one byte a minute. Each of these costs
memory and a file descriptor for as long as the client wishes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from beam_score.pipeline.job.serve import Limits
from beam_score.pipeline.serve.answering.answer import refusal
from beam_score.pipeline.serve.front.requests import request_id

_TICKS = 5  # of 0.1 s each, between two looks at the clock
_IDLE_S = 1.0


class Connection(HttpToolsProtocol):
    """A connection.

    Args:
      limits: of headers, time and connections.
      of_uvicorn: see `HttpToolsProtocol`.
    """

    def __init__(self, limits: Limits, **of_uvicorn: Any):
        super().__init__(**of_uvicorn)
        self._limits = limits
        self._problem = (400, "the request is not HTTP")
        self._task: asyncio.Task[None] | None = None
        self._in_head, self._head_bytes, self._chunk_bytes = False, -1, 0
        self._late_at = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection if there are too many."""
        super().connection_made(transport)
        self._late_at = self.loop.time() + self._limits.header_time
        if len(self.connections) > self._limits.connections:
            message = f"more than serve.limits.connections {self._limits.connections:,}"
            self._refuse(503, message, b"retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request that nobody waits for."""
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Pass on what has come, unless it is more than a header may be."""
        self._chunk_bytes = len(data)
        super().data_received(data)
        if self._in_head:
            # Of the chunk in which a request begins, an unknown part belongs to the request before.
            self._head_bytes = 0 if self._head_bytes < 0 else self._head_bytes + len(data)
            if self._head_bytes > self._limits.headers:
                self._refuse(*self._too_long())

    def on_message_begin(self) -> None:
        """Start the clock of a header."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, -1
        self._late_at = self.loop.time() + self._limits.header_time

    def on_headers_complete(self) -> None:
        """Judge the size of a header, and start the clock of its body."""
        if self._chunk_bytes + max(0, self._head_bytes) > self._limits.headers:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._limits.headers:
                self._problem = self._too_long()
                raise ValueError  # see send_400_response
        self._in_head = False
        self._late_at = self.loop.time() + self._limits.body_time
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the clock."""
        self._late_at = math.inf
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._task = self.loop.create_task(cycle.run_asgi(app))
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not take, or `on_headers_complete`."""
        self._refuse(*self._problem)

    def cut_if_late(self, now: float) -> None:
        """Close the connection if the client has taken too long for a header or a body."""
        if now < self._late_at or self.transport.is_closing():
            return
        if self._in_head:
            self._refuse(408, f"the header took longer than serve.limits.header_time {self._limits.header_time:g} s")
        elif self.cycle is None:  # not a byte has come
            self.transport.close()
        else:
            self._refuse(408, f"the body took longer than serve.limits.body_time {self._limits.body_time:g} s")

    def _too_long(self) -> tuple[int, str]:
        return 431, f"the header has more bytes than serve.limits.headers {self._limits.headers:,}"

    def _refuse(self, status: int, message: str, more: bytes = b"") -> None:
        """Answer in place of the application, unless an answer has begun, and close."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is None or (cycle.response_complete if self._in_head else not cycle.response_started):
            body = refusal(status, message, request_id("")).body
            head = b"content-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head % (len(body), more) + body)
        self.transport.close()


class Listener(uvicorn.Server):
    """The server of all connections."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the service: uvicorn would raise them again at its end."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Close the connections of slow clients, from time to time."""
        if counter % _TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.cut_if_late(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, and end those that are open.

        uvicorn closes idle connections at once, also one whose next request is on its way. They have a moment: that
        request is answered, with `Connection: close`.
        """
        for server in self.servers:
            server.close()
        late = time.monotonic() + _IDLE_S
        while self.server_state.connections and time.monotonic() < late:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
