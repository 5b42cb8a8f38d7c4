"""Frames on the socket between the front and the process of a model: a small header and the bodies of a batch.

A frame is the length of its header and that of all bodies (uint32 each, little-endian), the header as JSON, and the
bodies, whose single lengths the header gives. Bodies are not parsed on the way.
"""

from __future__ import annotations

import io
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

Frame = tuple[dict[str, Any], list[bytes]]

_LENGTHS = struct.Struct("<II")
_PARTS = 512  # of one system call: IOV_MAX is 1,024


def frame(header: dict[str, Any], bodies: Sequence[bytes]) -> list[bytes]:
    """Return the parts of a frame.

    Args:
      header: plain data; `sizes` is added.
    """
    sizes = [len(body) for body in bodies]
    encoded = orjson.dumps({**header, "sizes": sizes})
    return [_LENGTHS.pack(len(encoded), sum(sizes)), encoded, *bodies]


class Frames:
    """Frames of the pieces in which they come."""

    def __init__(self) -> None:
        self._parts, self._size, self._needed = list[bytes](), 0, _LENGTHS.size

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the header and the bodies of each frame that a piece completes."""
        self._parts.append(data)
        self._size += len(data)
        while self._size >= self._needed:
            data = b"".join(self._parts)
            header, bodies = _LENGTHS.unpack_from(data)
            end = _LENGTHS.size + header + bodies
            if len(data) >= end:
                yield _parsed(data[_LENGTHS.size : end], header)
                data, end = data[end:], _LENGTHS.size
            self._parts, self._size, self._needed = [data], len(data), end


def receive(stream: io.BufferedReader[Any]) -> Frame | None:
    """Return the header and the bodies of the next frame; None at the end. Waits for it."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    header, bodies = _LENGTHS.unpack(lengths)
    data = stream.read(header + bodies)
    return _parsed(data, header) if len(data) == header + bodies else None


def send(connection: socket.socket, header: dict[str, Any], bodies: Sequence[bytes]) -> None:
    """Send a frame. Waits until the system has taken it."""
    parts = frame(header, bodies)
    for at in range(0, len(parts), _PARTS):
        some = parts[at : at + _PARTS]
        sent = connection.sendmsg(some)
        if sent < sum(map(len, some)):
            connection.sendall(memoryview(b"".join(some))[sent:])


def _parsed(data: bytes, header_size: int) -> Frame:
    header = orjson.loads(data[:header_size])
    at, bodies = header_size, []
    for size in header.pop("sizes"):
        bodies.append(data[at : at + size])
        at += size
    return header, bodies
