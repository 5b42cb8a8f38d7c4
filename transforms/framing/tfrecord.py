"""TFRecord framing: a sequence of length, CRC of the length, data, CRC of the data.

The lengths are walked in one tight loop (or none, if all records have the same size) and their CRCs are
checked for all records at once. A length is used only after its CRC was verified, and never to allocate memory.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections.abc import Callable, Iterator

import google_crc32c
import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import cut_out
from beam_score.transforms.framing import crc32c
from beam_score.transforms.framing.lines import MAX_PAYLOAD_BYTES
from beam_score.transforms.stores.compression import CorruptStream, Refuted

HEADER_BYTES = 12
_FRAME_BYTES = 16  # bytes of a record besides its data
_unpack_length = struct.Struct("<Q").unpack_from
PADDING = bytes(16)
"""Appended to every buffer, so that eight bytes can be loaded from any position in it."""


@dataclasses.dataclass(frozen=True)
class Records:
    """Some consecutive records.

    Attributes:
      buffer: contains them; `PADDING` follows its last byte.
      starts, ends: int64, the range of each record's data in the buffer.
    """

    buffer: bytes
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def slice(self, start: int, end: int) -> Records:
        return Records(self.buffer, self.starts[start:end], self.ends[start:end])

    def sound(self) -> np.ndarray:
        """Return which records have a correct data CRC."""
        return crc32c.hold(self.array, _unmasked(_words(self.buffer, "<u4")[self.ends]))

    @functools.cached_property
    def array(self) -> pa.Array:
        """The records as a binary array (a copy)."""
        return cut_out(pa.py_buffer(self.buffer), self.starts, self.ends)


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """A record above the size limit. `head`: its first 64 KiB plus one byte; `size`: in bytes."""

    head: bytes
    size: int


@dataclasses.dataclass(frozen=True)
class Broken:
    """The rest of the stream cannot be read."""

    message: str


def read_records(
    read: Callable[[int], bytes], block_bytes: int, max_row_bytes: int
) -> Iterator[Records | TooLarge | Broken]:
    """Cut a stream into records, about `block_bytes` at a time.

    Args:
      read: returns up to the given number of bytes, `b""` at the end; may raise CorruptStream.
    """
    source = _Source(read, block_bytes)
    need = 1
    while True:
        buffer, size = source.fill(need)
        records, at, state = walk(buffer, size, max_row_bytes)
        if len(records):
            yield records
        source.skip(at)
        need = 1
        if state == "bad length":
            yield Broken("the CRC of a record's length is wrong, so no later record can be found")
            return
        if state == "too large":
            (length,) = _unpack_length(buffer, at)
            head = source.take(HEADER_BYTES, min(length, MAX_PAYLOAD_BYTES + 1))
            if not source.pass_over(length + _FRAME_BYTES):
                yield Broken(source.end_message(f"a record of {length} bytes"))
                return
            yield TooLarge(head, length)
        elif source.ended:
            if source.left or source.damage:
                yield Broken(source.end_message("a record"))
            return
        elif state == "unfinished":
            need = _unpack_length(buffer, at)[0] + _FRAME_BYTES
        else:
            need = source.left + 1


def walk(buffer: bytes, size: int, max_row_bytes: int) -> tuple[Records, int, str]:
    """Find the complete records in the first `size` bytes of a buffer.

    Returns:
      the records; the position of the next one; and its state: `bad length`, `too large`,
      `unfinished` (its length is known, its data incomplete) or `end` (not even a header).
    """
    starts, at = _equal_strides(buffer, size, max_row_bytes)
    more: list[int] = []
    append, unpack, limit = more.append, _unpack_length, size - _FRAME_BYTES
    while at <= limit:
        (length,) = unpack(buffer, at)
        if length > max_row_bytes or at + length > limit:
            break
        append(at)
        at += length + _FRAME_BYTES
    if more:
        starts = np.append(starts, np.array(more, np.int64))
    state = "end"
    heads = starts
    if size - at >= HEADER_BYTES:
        heads = np.append(starts, at)
        state = "too large" if _unpack_length(buffer, at)[0] > max_row_bytes else "unfinished"
    good = _lengths_hold(buffer, heads)
    if not good.all():
        first = int(np.argmin(good))
        starts, at, state = starts[:first], int(heads[first]), "bad length"
    data = starts + HEADER_BYTES
    lengths = _words(buffer, "<u8")[starts].astype(np.int64)
    return Records(buffer, data, data + lengths), at, state


def frame(record: bytes) -> bytes:
    """Return a record with its TFRecord framing."""
    length = struct.pack("<Q", len(record))
    crcs = _masked(np.array([google_crc32c.value(length), google_crc32c.value(record)], np.uint32))
    return b"".join((length, crcs[0].tobytes(), record, crcs[1].tobytes()))


def is_header(head: bytes) -> bool:
    """Return whether these bytes begin with a record's length and its correct CRC."""
    if len(head) < HEADER_BYTES:
        return False
    return bool(_lengths_hold(head[:HEADER_BYTES] + PADDING, np.zeros(1, np.int64))[0])


def _equal_strides(buffer: bytes, size: int, max_row_bytes: int) -> tuple[np.ndarray, int]:
    """Return the first records, as long as they have the length of the first one; and their end."""
    if size >= _FRAME_BYTES:
        (length,) = _unpack_length(buffer, 0)
        if length <= max_row_bytes and (count := size // (step := length + _FRAME_BYTES)) > 1:
            equal = np.ndarray(count, "<u8", buffer, 0, step) == length
            count = count if equal.all() else int(np.argmin(equal))
            return np.arange(count, dtype=np.int64) * step, count * step
    return np.zeros(0, np.int64), 0


def _words(buffer: bytes, dtype: str) -> np.ndarray:
    """Return all little-endian words of a buffer, by the position of their first byte."""
    width = int(dtype[-1])
    return np.ndarray(len(buffer) - width + 1, dtype, buffer, 0, 1)


def _lengths_hold(buffer: bytes, heads: np.ndarray) -> np.ndarray:
    words = _words(buffer, "<u8")[heads]
    tables, zero = _crc_tables()
    crc = np.full(len(heads), zero, np.uint32)
    for k in range(8):
        byte = ((words >> np.uint64(8 * k)) & np.uint64(255)).astype(np.int64)
        if k < 3 or byte.any():
            crc ^= tables[k][byte]
    return _masked(crc) == _words(buffer, "<u4")[heads + 8]


def _masked(crc: np.ndarray) -> np.ndarray:
    """Return the form in which a CRC is stored, so that a CRC over stored ones stays strong."""
    rotated = (crc >> np.uint32(15)) | (crc << np.uint32(17))
    return rotated + np.uint32(0xA282EAD8)


def _unmasked(stored: np.ndarray) -> np.ndarray:
    rotated = stored - np.uint32(0xA282EAD8)
    return (rotated >> np.uint32(17)) | (rotated << np.uint32(15))


@functools.cache
def _crc_tables() -> tuple[np.ndarray, int]:
    """Return tables to compute CRC32C of eight bytes: it is affine, the XOR of one table per byte and a constant."""
    zero = google_crc32c.value(bytes(8))
    tables = np.zeros((8, 256), np.uint32)
    for k in range(8):
        for byte in range(256):
            tables[k, byte] = google_crc32c.value(bytes(k) + bytes([byte]) + bytes(7 - k)) ^ zero
    return tables, zero


class _Source:
    """The unconsumed bytes of a stream."""

    def __init__(self, read: Callable[[int], bytes], block_bytes: int):
        self._read, self._block_bytes = read, block_bytes
        self._buffer, self._at, self._size = PADDING, 0, 0
        self.ended = False
        self.damage: str | None = None

    @property
    def left(self) -> int:
        return self._size - self._at

    def fill(self, need: int) -> tuple[bytes, int]:
        """Return a padded buffer that begins with the bytes left and has, if possible, `need` bytes and a block."""
        pieces, size = [self._buffer[self._at : self._size]], self.left
        need = max(need, self._block_bytes)
        while size < need and (piece := self._next(need - size)):
            pieces.append(piece)
            size += len(piece)
        self._buffer, self._at, self._size = b"".join((*pieces, PADDING)), 0, size
        return self._buffer, size

    def skip(self, count: int) -> None:
        self._at += count

    def take(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes at `offset` from here, without consuming them."""
        self.fill(offset + count)
        return self._buffer[offset : min(offset + count, self._size)]

    def pass_over(self, count: int) -> bool:
        """Skip `count` bytes; return False if there are fewer."""
        count -= self.left
        if count <= 0:
            self._at = self._size + count
            return True
        self._at = self._size
        while count and (piece := self._next(min(count, self._block_bytes))):
            count -= len(piece)
        return count == 0

    def end_message(self, what: str) -> str:
        return self.damage or f"the file ends inside {what}"

    def _next(self, count: int) -> bytes:
        if self.ended:
            return b""
        try:
            piece = self._read(count)
        except Refuted:
            raise
        except CorruptStream as error:
            self.damage, piece = str(error), b""
        self.ended = not piece
        return piece
