"""Many requests to a server at once, by a client that costs little: raw HTTP over connections that stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator


async def ask_all(
    address: str,
    paths_and_bodies: Iterable[tuple[str, bytes]],
    see: Callable[[int, int, bytes], None],
    connections: int,
) -> None:
    """Send each body, and pass on the number of the request, the status and the body of each answer.

    Args:
      address: `http://HOST:PORT`.
      paths_and_bodies: of the requests.
      see: called with each answer.
      connections: at the same time.
    """
    host, _, port = address.removeprefix("http://").rpartition(":")
    todo = enumerate(paths_and_bodies)
    await asyncio.gather(*(_ask(host, int(port), todo, see) for _ in range(connections)))


async def _ask(
    host: str, port: int, todo: Iterator[tuple[int, tuple[str, bytes]]], see: Callable[[int, int, bytes], None]
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    for number, (path, body) in todo:
        writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body))
        head = await reader.readuntil(b"\r\n\r\n")
        at = head.index(b"content-length: ") + 16
        length = int(head[at : head.index(b"\r", at)])
        see(number, int(head[9:12]), await reader.readexactly(length))
    writer.close()
