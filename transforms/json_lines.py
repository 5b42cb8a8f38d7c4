"""Predictions as JSON Lines."""

from __future__ import annotations

import base64

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

MARKER = "_not_finite"


def to_json_lines(table: pa.Table, not_finite: str) -> bytes:
    """Rows as JSON Lines in UTF-8. JSON has no word for NaN and the infinities, and none is written.

    Args:
      not_finite: `null`: such a value is null, and a string column NAME_not_finite beside it, there in
        every line, says which it was; `string`: it is the string NaN, Infinity or -Infinity.
    """
    columns = {}
    endless = False
    for field, column in zip(table.schema, table.columns, strict=True):
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        columns[field.name] = _text(column)
        if _is_floating(field.type):
            marks = _marks(column)
            endless = endless or marks.null_count < len(marks)
            if not_finite == "null":
                columns[field.name + MARKER] = marks
    frame = pl.from_arrow(pa.table(columns))
    if endless and not_finite == "string":
        # Only a batch that has such a value comes here: a column of numbers and strings is no column.
        return b"".join(
            orjson.dumps(_spelled(row), option=orjson.OPT_APPEND_NEWLINE) for row in frame.iter_rows(named=True)
        )
    return frame.write_ndjson().encode()


def _is_floating(type_: pa.DataType) -> bool:
    while pa.types.is_nested(type_):
        type_ = type_.value_type
    return pa.types.is_floating(type_)


def _text(column: pa.Array) -> pa.Array:
    if pa.types.is_float16(column.type):
        return column.cast(pa.float32())
    if not pa.types.is_binary(column.type):
        return column
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_decoded(v) for v in column.to_pylist()], pa.string())


def _decoded(value: bytes | None) -> str | None:
    try:
        return value if value is None else value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def _marks(column: pa.Array) -> pa.Array:
    flat = column
    while pa.types.is_nested(flat.type):
        flat = flat.flatten()
    numbers = flat.to_numpy(zero_copy_only=False)
    if not len(numbers) or (np.isfinite(numbers.min()) and np.isfinite(numbers.max())):
        return pa.nulls(len(column), pa.string())
    return pa.array([_mark(v) for v in column.to_pylist()], pa.string())


def _mark(value) -> str | None:
    """What of a value, or of a list of them, is not finite: the first such."""
    if isinstance(value, list):
        return next((m for m in map(_mark, value) if m), None)
    if value is None or np.isfinite(value):
        return None
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _spelled(value):
    if isinstance(value, dict):
        return {k: _spelled(v) for k, v in value.items()}
    if isinstance(value, list | pl.Series):
        return [_spelled(v) for v in value]
    return _mark(value) or value if isinstance(value, float) else value
