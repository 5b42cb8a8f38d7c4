"""Frames on the socket between the front and the process of a model: a small header and the bodies of a batch.

A frame is the length of its header (uint32, little-endian), the header as JSON, and the bodies, whose lengths the
header gives. Bodies are not copied or parsed on the way.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Any

import orjson

_LENGTH = struct.Struct("<I")
_PARTS = 512  # of one system call: IOV_MAX is 1,024


def frame(header: dict[str, Any], bodies: Sequence[bytes]) -> list[bytes]:
    """Return the parts of a frame.

    Args:
      header: plain data; `sizes` is added.
    """
    encoded = orjson.dumps({**header, "sizes": [len(body) for body in bodies]})
    return [_LENGTH.pack(len(encoded)), encoded, *bodies]


async def read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], list[bytes]]:
    """Return the header and the bodies of the next frame. Raises asyncio.IncompleteReadError at the end."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    header = orjson.loads(await reader.readexactly(length))
    sizes = header.pop("sizes")
    return header, _cut(await reader.readexactly(sum(sizes)), sizes)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[bytes]] | None:
    """Return the header and the bodies of the next frame; None at the end. Waits for it."""
    length = _exactly(connection, _LENGTH.size)
    if length is None:
        return None
    header = orjson.loads(_exactly(connection, _LENGTH.unpack(length)[0]) or b"{}")
    sizes = header.pop("sizes", [])
    return header, _cut(_exactly(connection, sum(sizes)) or b"", sizes)


def send(connection: socket.socket, header: dict[str, Any], bodies: Sequence[bytes]) -> None:
    """Send a frame. Waits until the system has taken it."""
    parts = frame(header, bodies)
    for at in range(0, len(parts), _PARTS):
        some = parts[at : at + _PARTS]
        sent = connection.sendmsg(some)
        rest = memoryview(b"".join(some))[sent:]
        if rest:
            connection.sendall(rest)


def _exactly(connection: socket.socket, size: int) -> bytes | None:
    if not size:
        return b""
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        got = connection.recv_into(view[at:])
        if not got:
            return None
        at += got
    return bytes(data)


def _cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    at, bodies = 0, []
    for size in sizes:
        bodies.append(data[at : at + size])
        at += size
    return bodies
