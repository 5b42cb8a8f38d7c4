"""The socket that clients connect to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket

from beam_score.pipeline.serve.http1.connection import App, Connection, Patience

_CHECK_S = 1.0
_PATIENCE = Patience()


class Listener:
    """Answers the connections to a socket.

    Args:
      app: answers requests.
      listening: the socket.
      drain_s: seconds that accepted requests have to be answered once the server ends.
      patience: with clients.
    """

    def __init__(self, app: App, listening: socket.socket, drain_s: float, patience: Patience = _PATIENCE):
        self._app, self._socket, self._drain_s, self._patience = app, listening, drain_s, patience
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Accept no more connections and requests, and end `serve`."""
        self._ending.set()

    async def serve(self) -> None:
        """Answer until `end`, and then what was accepted."""
        loop, connections = asyncio.get_running_loop(), set[Connection]()
        make = functools.partial(Connection, self._app, connections, self._patience)
        server = await loop.create_server(make, sock=self._socket)
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), _CHECK_S)
            for connection in list(connections):
                connection.check(loop.time())
        server.close()
        late = loop.time() + self._drain_s
        for connection in list(connections):
            connection.end()
        while connections and loop.time() < late:
            await asyncio.sleep(0.02)
        for connection in list(connections):
            connection.abort()
