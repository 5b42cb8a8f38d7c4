"""The sockets that clients connect to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Sequence

from beam_score.pipeline.serve.http1.connection import App, ClientLimits, Connection

_CHECK_S = 1.0


class Listener:
    """Answers the connections to some sockets.

    Args:
      app: answers requests.
      sockets: bound, and listening.
      drain_s: seconds that accepted requests have to be answered once the server ends.
      limits: of clients; None for the defaults.
      tls: of all connections; None for none.
    """

    def __init__(
        self,
        app: App,
        sockets: Sequence[socket.socket],
        drain_s: float,
        limits: ClientLimits | None = None,
        tls: ssl.SSLContext | None = None,
    ):
        self._app, self._sockets, self._drain_s = app, sockets, drain_s
        self._limits, self._tls = limits or ClientLimits(), tls
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Accept no more connections and requests, and end `serve`."""
        self._ending.set()

    async def serve(self) -> None:
        """Answer until `end`, and then what was accepted."""
        loop, connections = asyncio.get_running_loop(), set[Connection]()
        make = functools.partial(Connection, self._app, connections, self._limits)
        servers = [await loop.create_server(make, sock=one, ssl=self._tls) for one in self._sockets]
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _CHECK_S)
            for connection in list(connections):
                connection.check(loop.time())
        for server in servers:
            server.close()
        late = loop.time() + self._drain_s
        for connection in list(connections):
            connection.end()
        while connections and loop.time() < late:
            await asyncio.sleep(0.02)
        for connection in list(connections):
            connection.abort()
