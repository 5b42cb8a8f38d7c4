"""Rows as JSON objects: as lines of a file, and for the dead letters of Parquet rows."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.transforms.arrays.plain import broken_text, is_list, is_text, plain
from beam_score.transforms.arrays.texts import has_text

if TYPE_CHECKING:
    import polars as pl

_LONGEST_NAME = 1 << 10
"""Bytes of the first name of an object. With a longer one, objects are encoded one by one."""

_ROWS_AT_ONCE = 1 << 11
"""Rows whose text stays in a processor's cache until it is complete."""


def columns_json(batch: pa.RecordBatch) -> pa.Array:
    """Return one JSON object per row, in UTF-8, as a binary array.

    Numbers, booleans, text and lists map to those of JSON. Bytes are text if they are valid UTF-8, else
    `{"b64": "..."}`; NaN and infinities are the strings `NaN`, `Infinity`, `-Infinity`; decimals,
    dates and times are text.
    """
    count = batch.num_rows
    if not batch.num_columns:
        return pa.array([b"{}"] * count, pa.binary())
    odd = np.zeros(count, bool)  # rows that are encoded one by one
    columns, endless = {}, {}
    arrays = [_simple(array) for array in batch.columns]
    for name, array in zip(batch.schema.names, arrays, strict=True):
        columns[name], strange = _writable(array)
        if pa.types.is_floating(array.type):
            if strange.any():
                endless[name] = strange
        else:
            odd |= strange
    packed = pa.array(lines_of(pa.RecordBatch.from_pydict(columns)).split(b"\n")[:-1], pa.binary())
    for name, strange in endless.items():
        begins = "{" if name == batch.schema.names[0] else ","
        packed = _with_spellings(packed, begins, name, columns[name], strange)
    if not odd.any():
        return packed
    at = np.flatnonzero(odd)
    values = [_bytes_for_text(array.take(pa.array(at))).to_pylist() for array in arrays]
    texts = [_json_object(dict(zip(batch.schema.names, row, strict=True))) for row in zip(*values, strict=True)]
    return pc.replace_with_mask(packed, pa.array(odd), pa.array([t.encode() for t in texts], pa.binary()))


def lines_of(rows: pa.Table | pa.RecordBatch) -> bytes:
    """Return rows as JSON Lines in UTF-8, as polars writes their types."""
    return b"".join(pieces_of(rows))


def pieces_of(rows: pa.Table | pa.RecordBatch) -> list[bytes | pa.Buffer]:
    """Return `lines_of` in pieces of whole lines.

    By functions of polars that run in the thread that calls them. Expressions, `write_ndjson` and `from_arrow` of a
    table run in threads of its own, which find no core free beside a worker for each: with two of them busy, to encode
    800 dead letters takes 5 ms instead of 2.
    """
    import polars as pl

    columns = {name: pl.Series(c) for name, c in zip(rows.schema.names, rows.columns, strict=True)}
    frame = pl.DataFrame(columns)
    return [_lines(frame.slice(begin, _ROWS_AT_ONCE)) for begin in range(0, rows.num_rows, _ROWS_AT_ONCE)]


def _lines(frame: pl.DataFrame) -> bytes | pa.Buffer:
    written = io.BytesIO()
    frame.write_json(written)
    with written.getbuffer() as text:
        certain = _separated(np.frombuffer(text, np.uint8), frame.height)
    if certain:
        return pa.py_buffer(written.getvalue()).slice(1)
    return ("\n".join(frame.to_struct("row").struct.json_encode()) + "\n").encode()


def _separated(text: np.ndarray, count: int) -> bool:
    """Put a line end after each object of a JSON array without white space, in place of what follows it.

    Returns:
      False if it is not certain where the objects begin: if objects in them, too, begin with the first of their names.
    """
    first = re.match(rb'\[(\{"(?:[^"\\]|\\.)*":)', text[:_LONGEST_NAME].tobytes())
    begins = np.flatnonzero(text == ord("{"))[1:]
    # Found nowhere inside of a text, where quotes are escaped.
    begins = begins[has_text(text, begins - 2, b"}," + first.group(1))] if first else begins[:0]
    if len(begins) != count - 1:
        return False
    text[begins - 1] = text[-1] = ord("\n")
    return True


def _with_spellings(packed: pa.Array, begins: str, name: str, numbers: pa.Array, at: np.ndarray) -> pa.Array:
    """Return objects with the numbers of one column spelled out where they are not finite, and polars wrote null.

    The key in quotes, and what precedes it, is found nowhere else: inside of a text, quotes are escaped.

    Args:
      at: which rows, bool.
    """
    key = f"{begins}{json.dumps(name, ensure_ascii=False)}:"
    values = numbers.filter(pa.array(at)).to_numpy(zero_copy_only=False)
    texts = packed.filter(pa.array(at))
    for value in (math.nan, math.inf, -math.inf):
        same = np.isnan(values) if math.isnan(value) else values == value
        if same.any():
            spelled = pc.replace_substring(texts, f"{key}null", f'{key}"{spelling(value)}"', max_replacements=1)
            texts = spelled if same.all() else pc.if_else(pa.array(same), spelled, texts)
    return pc.replace_with_mask(packed, pa.array(at), texts)


def _simple(array: pa.Array) -> pa.Array:
    """Convert dates, times and decimals to text; return other arrays unchanged."""
    array = plain(array)
    if pa.types.is_temporal(array.type) or pa.types.is_decimal(array.type):
        with contextlib.suppress(pa.ArrowNotImplementedError):
            return array.cast(pa.string())
    return array


def _writable(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return the column in a form that polars can write, and which rows polars cannot write exactly."""
    count, type_ = len(array), array.type
    odd = np.zeros(count, bool)
    if is_text(type_):
        raw = array.cast(pa.large_binary())
        odd[broken_text(raw)] = True
        if odd.any():
            raw = pc.if_else(pa.array(odd), pa.scalar(None, pa.large_binary()), raw)
        return raw.cast(pa.large_string()), odd
    if pa.types.is_floating(type_):
        odd = ~pc.fill_null(pc.is_finite(array.cast(pa.float64())), True).to_numpy(zero_copy_only=False)
        return array, odd
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        return array, odd
    if is_list(type_) and (pa.types.is_integer(type_.value_type) or pa.types.is_floating(type_.value_type)):
        flat = array.flatten()
        if pa.types.is_integer(flat.type) or pc.all(pc.is_finite(flat.cast(pa.float64()))).as_py() is not False:
            return array, odd
    return pa.nulls(count), ~odd


def _bytes_for_text(array: pa.Array) -> pa.Array:
    """Convert text to bytes, also inside lists, since it may not be UTF-8."""
    type_ = array.type
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return array.cast(pa.large_binary())
    if is_list(type_) and (pa.types.is_string(type_.value_type) or pa.types.is_large_string(type_.value_type)):
        return array.cast(pa.large_list(pa.large_binary()))
    return array


def _json_object(row: dict[str, Any]) -> str:
    return json.dumps({name: _json(value) for name, value in row.items()}, ensure_ascii=False, separators=(",", ":"))


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return text_or_base64(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else spelling(value)
    if isinstance(value, list | tuple):
        return [_json(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _json(v) for k, v in value.items()}
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def text_or_base64(value: bytes) -> str | dict[str, str]:
    """Return bytes as text if they are UTF-8; else as `{"b64": "..."}`, so that no two values look alike."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def spelling(value: float) -> str:
    """Return the text for a number that is not finite, which JSON cannot express."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
