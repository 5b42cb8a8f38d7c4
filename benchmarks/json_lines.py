"""The peer's JSON Lines reader, by the rules for a valid line in `docs/contract.md`.

pyarrow parses a whole chunk of lines if cheap checks show that its result can be trusted: pyarrow accepts bytes that
are not UTF-8, NaN, two objects on one line and one object on two lines. A chunk that fails a check, or that pyarrow
refuses, is parsed line by line by `json`, exactly.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.json
from people import FEATURES

CHUNK_BYTES = 4 << 20
SCHEMA = pa.schema([("id", pa.int64()), *((name, pa.float32()) for name in FEATURES)])


def read(path: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ids, int64 [rows], and features, float32 [rows, 3], NaN if missing; id -1 for a line that is not valid."""
    with open(path, "rb") as file:
        rest = b""
        while data := file.read(CHUNK_BYTES):
            data = rest + data
            end = data.rfind(b"\n") + 1
            chunk, rest = data[:end], data[end:]
            if chunk:
                yield parse(chunk)
        if rest.strip():
            yield parse(rest + b"\n")


def parse(chunk: bytes) -> tuple[np.ndarray, np.ndarray]:
    if not is_plain(chunk):
        return parse_lines(chunk)
    try:
        table = pyarrow.json.read_json(
            io.BytesIO(chunk),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(chunk) + 1),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        return parse_lines(chunk)
    if table.num_rows != chunk.count(b"\n") or table["id"].null_count:
        return parse_lines(chunk)
    batch = table.combine_chunks().to_batches()[0]
    features = np.stack([batch[name].to_numpy(zero_copy_only=False) for name in FEATURES], axis=1)
    return batch["id"].to_numpy(), features


def is_plain(chunk: bytes) -> bool:
    """Return whether every line looks like one object, without the numbers that JSON does not allow."""
    if b"NaN" in chunk or b"Infinity" in chunk or b"}\n{" not in chunk:
        return False
    if not chunk.isascii():
        try:
            chunk.decode()
        except UnicodeDecodeError:
            return False
    # Between lines there is a `}`, the end of the line, and the `{` of the next line.
    return chunk.startswith(b"{") and chunk.endswith(b"}\n") and chunk.count(b"}\n{") == chunk.count(b"\n") - 1


def parse_lines(chunk: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return one row per line that is not blank; id -1 and NaN for a line that breaks a rule."""
    rows = [parse_line(line) for line in chunk.split(b"\n") if line.strip()]
    ids = np.array([row[0] for row in rows], np.int64)
    return ids, np.array([row[1:] for row in rows], np.float32).reshape(-1, len(FEATURES))


def parse_line(line: bytes) -> tuple[float, ...]:
    bad = (-1, *[math.nan] * len(FEATURES))
    try:
        pairs = json.loads(line.decode(), object_pairs_hook=list, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return bad
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        return bad
    known = [pair for pair in pairs if pair[0] in SCHEMA.names]
    values = dict(known)
    if len(values) != len(known):
        return bad
    if not all(type(value) in (int, float) for value in values.values()) or not set(SCHEMA.names) <= set(values):
        return bad
    if values["id"] != int(values["id"]):
        return bad
    return int(values["id"]), *(float(values[name]) for name in FEATURES)


def _refuse(constant: str) -> None:
    raise ValueError(constant)
