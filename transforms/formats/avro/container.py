"""The container of Avro: a header with the schema, then blocks of rows, each followed by the file's sync marker.

Source: the Avro specification, "Object Container Files" (https://avro.apache.org/docs/1.12.0/specification/).
"""

from __future__ import annotations

import bz2
import dataclasses
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import zstandard

from beam_score.transforms.formats.base import UnusableFile
from beam_score.transforms.stores.byte_file import ByteFile
from beam_score.transforms.stores.local_file import is_of_the_system

MAGIC = b"Obj\x01"
MOST_BLOCK_BYTES = 64 << 20
"""A larger block, stored or decompressed, is not read. Writers make blocks of some 16 kB to 1 MB."""

_SYNC_BYTES = 16
_MOST_HEADER_BYTES = 64 << 20
_READ_BYTES = 1 << 20
_LONGEST = 10  # bytes of an integer
_ZSTD_BYTES = 1 << 10  # a kilobyte decompresses to some 32 MB at most
_XZ_BYTES = 256 << 20


class Damage(Exception):
    """The bytes contradict the specification."""


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a file.

    Attributes:
      schema: the parsed JSON.
      codec: the name of the compression.
      sync: 16 bytes.
      size: bytes of the header: where the first block begins.
    """

    schema: Any
    codec: str
    sync: bytes
    size: int


@dataclasses.dataclass(frozen=True)
class Block:
    """One block of rows.

    Attributes:
      start, end: where it is in the file, its sync marker included.
      rows: their number, according to its head.
      stored: its compressed bytes; None if they were skipped.
    """

    start: int
    end: int
    rows: int
    stored: bytes | None


class _Bytes:
    """The bytes of a file from a position on, read ahead."""

    def __init__(self, file: ByteFile, at: int):
        self._file, self._held, self._used = file, b"", 0
        self.at = at
        file.seek(at)

    def take(self, size: int) -> bytes:
        """Return the next bytes. Raises Damage at the end of the file."""
        while len(self._held) - self._used < size:
            piece = self._file.read(max(_READ_BYTES, size))
            if not piece:
                raise Damage("the file ends early")
            self._held, self._used = self._held[self._used :] + piece, 0
        taken = self._held[self._used : self._used + size]
        self._used += size
        self.at += size
        return taken

    def is_at_end(self) -> bool:
        if self._used == len(self._held):
            self._held, self._used = self._file.read(_READ_BYTES), 0
        return not self._held

    def skip(self, size: int) -> None:
        if size <= len(self._held) - self._used:
            self._used += size
        else:
            self._file.seek(self.at + size)
            self._held, self._used = b"", 0
        self.at += size

    def number(self) -> int:
        """Return the next integer, in zigzag coding."""
        value = 0
        for index in range(_LONGEST):
            (byte,) = self.take(1)
            value |= (byte & 127) << (7 * index)
            if byte < 128:
                return (value >> 1) ^ -(value & 1)
        raise Damage("an integer of more than 64 bits")

    def sized(self, most: int) -> bytes:
        size = self.number()
        if not 0 <= size <= most:
            raise Damage(f"a size of {size} bytes")
        return self.take(size)


def read_header(file: ByteFile) -> Header:
    """Return the header of a file.

    Raises:
      UnusableFile: this is not an Avro file, or its schema or compression is not one that can be read.
      OSError: the file cannot be read.
    """
    source = _Bytes(file, 0)
    try:
        if (magic := source.take(len(MAGIC))) != MAGIC:
            raise UnusableFile("unreadable", f"not an Avro file: it begins with {magic!r}, expected {MAGIC!r}")
        found: dict[str, bytes] = {}
        while count := source.number():
            if count < 0:  # then the size of these entries follows
                count = -count
                source.number()
            for _ in range(count):
                key = source.sized(_MOST_HEADER_BYTES).decode(errors="replace")
                found[key] = source.sized(_MOST_HEADER_BYTES)
                if source.at > _MOST_HEADER_BYTES:
                    raise Damage("a header of more than 64 MB")
        sync = source.take(_SYNC_BYTES)
    except Damage as damage:
        raise UnusableFile("unreadable", f"the header of the Avro file is damaged: {damage}") from None
    codec = found.get("avro.codec", b"null").decode(errors="replace")
    if codec not in _DECOMPRESS:
        raise UnusableFile("unreadable", f"compressed by {codec!r}: expected one of {', '.join(sorted(_DECOMPRESS))}")
    try:
        schema = json.loads(found["avro.schema"])
    except (KeyError, ValueError, RecursionError):
        raise UnusableFile("unreadable", "the header of the Avro file has no schema in JSON") from None
    return Header(schema, codec, sync, source.at)


def blocks(file: ByteFile, header: Header, start: int, end: int, passing_over: bool = False) -> Iterator[Block]:
    """Yield the blocks of a part of a file.

    Args:
      start, end: bytes, between blocks; a negative end is that of the file.
      passing_over: skip the rows: only the positions of the blocks are needed.

    Raises:
      Damage: the next block cannot be found; those before were yielded.
      OSError: the file cannot be read.
    """
    last = file.seek(0, io.SEEK_END)
    source = _Bytes(file, start)
    while (end < 0 or source.at < end) and not source.is_at_end():
        begin = source.at
        rows, size = source.number(), source.number()
        most = size if header.codec == "null" else MOST_BLOCK_BYTES  # a row takes a byte or more: see `schema`
        if not 0 <= rows <= most or size < 0:
            raise Damage(f"a block of {rows} rows in {size} bytes")
        if source.at + size + _SYNC_BYTES > last:
            raise Damage("the file ends early")
        stored = None
        if passing_over or size > MOST_BLOCK_BYTES:
            source.skip(size)
        else:
            stored = source.take(size)
        if source.take(_SYNC_BYTES) != header.sync:
            raise Damage("a block is not followed by the sync marker")
        yield Block(begin, source.at, rows, stored)


def decompressed(block: Block, codec: str) -> bytes:
    """Return the rows of a block, still encoded.

    Raises:
      Damage: they cannot be decompressed, or there are too many.
    """
    if block.stored is None:
        raise Damage(f"it has more than {MOST_BLOCK_BYTES >> 20} MB: write smaller blocks")
    try:
        data = _DECOMPRESS[codec](block.stored)
    except (ValueError, EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError, pa.ArrowException) as error:
        if is_of_the_system(error):
            raise
        raise Damage(f"it cannot be decompressed: {error}") from None
    if len(data) > MOST_BLOCK_BYTES:
        raise Damage(f"it has more than {MOST_BLOCK_BYTES >> 20} MB: write smaller blocks")
    if block.rows > len(data):
        raise Damage(f"{block.rows} rows in {len(data)} bytes")
    return data


def _snappy(data: bytes) -> bytes:
    """Decompress; the last four bytes are the CRC-32 of the content."""
    size = shift = 0
    for byte in data[:5]:  # the size precedes the content
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    if size > MOST_BLOCK_BYTES:
        raise ValueError(f"more than {MOST_BLOCK_BYTES >> 20} MB")
    found = pa.Codec("snappy").decompress(data[:-4], size, asbytes=True) if size else b""
    if zlib.crc32(found).to_bytes(4, "big") != data[-4:]:
        raise ValueError("its CRC is wrong")
    return found


def _zstandard(data: bytes) -> bytes:
    stream, found, size = zstandard.ZstdDecompressor().decompressobj(), [], 0
    for at in range(0, len(data), _ZSTD_BYTES):
        found.append(stream.decompress(data[at : at + _ZSTD_BYTES]))
        size += len(found[-1])
        if size > MOST_BLOCK_BYTES:
            raise ValueError(f"more than {MOST_BLOCK_BYTES >> 20} MB")
    if not stream.eof:
        raise ValueError("it ends early")
    return b"".join(found)


def _whole(stream: Any, data: bytes) -> bytes:
    """Decompress by a decompressor object of the standard library."""
    found: bytes = stream.decompress(data, MOST_BLOCK_BYTES + 1)
    if not stream.eof and len(found) <= MOST_BLOCK_BYTES:
        raise ValueError("it ends early")
    return found


_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "null": lambda data: data,
    "deflate": lambda data: _whole(zlib.decompressobj(-15), data),
    "snappy": _snappy,
    "bzip2": lambda data: _whole(bz2.BZ2Decompressor(), data),
    "xz": lambda data: _whole(lzma.LZMADecompressor(memlimit=_XZ_BYTES), data),
    "zstandard": _zstandard,
}
