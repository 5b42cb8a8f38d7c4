"""The index of a checkpoint, `variables/variables.index`: the files that it names, and their least sizes.

An index is a table of LevelDB (tensorflow/core/lib/io/format.h) with a BundleHeaderProto under the empty key, and a
BundleEntryProto for each variable (tensorflow/core/protobuf/tensor_bundle.proto). It is written uncompressed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_FOOTER, _MAGIC = 48, 0xDB4775248B80FB57


class NotAnIndex(ValueError):
    """Bytes that are not an index: cut short, or damaged."""


def shards(index: bytes) -> dict[int, int]:
    """Return the shards that an index names, each with the bytes that it must have at least.

    Raises:
      NotAnIndex: the bytes are not those of an index.
    """
    try:
        return _shards(index)
    except (IndexError, struct.error):
        raise NotAnIndex("cut short or damaged") from None


def _shards(index: bytes) -> dict[int, int]:
    if len(index) < _FOOTER or struct.unpack("<Q", index[-8:])[0] != _MAGIC:
        raise NotAnIndex("cut short or damaged")
    _, _, at = _handle(index, len(index) - _FOOTER)  # the handle of the metaindex block comes first
    start, size, _ = _handle(index, at)
    sizes: dict[int, int] = {}
    for _, value in _entries(index, start, size):
        block, length, _ = _handle(value, 0)
        for name, entry in _entries(index, block, length):
            fields = _varints(entry)
            if name:
                shard = fields.get(3, 0)
                sizes[shard] = max(sizes.get(shard, 0), fields.get(4, 0) + fields.get(5, 0))
            else:
                sizes |= {shard: sizes.get(shard, 0) for shard in range(fields.get(1, 0))}
    return sizes


def _entries(index: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block. Raises NotAnIndex, IndexError."""
    block = index[start : start + size]
    if len(block) < size or index[start + size] != 0:
        raise NotAnIndex("cut short or compressed")
    (restarts,) = struct.unpack("<I", block[-4:])
    end, at, key = size - 4 * (restarts + 1), 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    start, at = _varint(data, at)
    size, at = _varint(data, at)
    return start, size, at


def _varints(message: bytes) -> dict[int, int]:
    """Return the fields of a message that are varints."""
    found, at = {}, 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            found[tag >> 3], at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            at += length
        else:
            at += 8 if kind == 1 else 4
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
