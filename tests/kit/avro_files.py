"""Avro object container files with any schema, written by the specification: no library here writes maps, unions or
enums, and none damages a block."""

from __future__ import annotations

import bz2
import json
import lzma
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import zstandard

SYNC = bytes(range(16))

_PACKED = {
    "null": lambda data: data,
    "deflate": lambda data: zlib.compress(data)[2:-4],
    "snappy": lambda data: pa.compress(data, "snappy", asbytes=True) + zlib.crc32(data).to_bytes(4, "big"),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstandard": zstandard.compress,
}
CODECS = tuple(_PACKED)


def number(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def sized(data: bytes) -> bytes:
    return number(len(data)) + data


def encoded(value: Any, schema: Any) -> bytes:
    """A value, by its schema; a union takes the first branch for None if that is null, else the other."""
    if isinstance(schema, list):
        index = schema.index("null") if value is None else next(i for i, s in enumerate(schema) if s != "null")
        return number(index) + encoded(value, schema[index])
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind == "null":
        return b""
    if kind == "boolean":
        return bytes([value])
    if kind in ("int", "long"):
        return number(value)
    if kind == "float":
        return struct.pack("<f", value)
    if kind == "double":
        return struct.pack("<d", value)
    if kind in ("string", "bytes"):
        return sized(value.encode() if isinstance(value, str) else value)
    if kind == "fixed":
        return value
    if kind == "enum":
        return number(schema["symbols"].index(value))
    if kind == "record":
        return b"".join(encoded(value[f["name"]], f["type"]) for f in schema["fields"])
    if kind == "array":
        items = b"".join(encoded(item, schema["items"]) for item in value)
        return (number(len(value)) + items if value else b"") + number(0)
    assert kind == "map", kind
    pairs = b"".join(sized(key.encode()) + encoded(item, schema["values"]) for key, item in value.items())
    return (number(len(value)) + pairs if value else b"") + number(0)


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "row", "fields": [{"name": n, "type": t} for n, t in fields.items()]}


def container(schema: Any, blocks: Sequence[tuple[int, bytes]], codec: str = "null") -> bytes:
    """A file of blocks of (rows, content)."""
    meta = number(2)
    for key, value in (("avro.schema", json.dumps(schema)), ("avro.codec", codec)):
        meta += sized(key.encode()) + sized(value.encode())
    parts = [b"Obj\x01", meta, number(0), SYNC]
    for rows, data in blocks:
        parts += [number(rows), sized(_PACKED[codec](data)), SYNC]
    return b"".join(parts)


def avro_file(schema: Any, rows: Sequence[dict[str, Any]], codec: str = "null", block_rows: int = 100) -> bytes:
    """A file of these rows."""
    groups = [rows[at : at + block_rows] for at in range(0, len(rows), block_rows)]
    blocks = [(len(group), b"".join(encoded(row, schema) for row in group)) for group in groups]
    return container(schema, blocks, codec)
