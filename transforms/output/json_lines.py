"""Predictions as JSON Lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.transforms.arrays.nested import leaves, nulls, owners, with_leaves
from beam_score.transforms.arrays.plain import broken_text, filter_rows, is_list
from beam_score.transforms.rows.as_json import pieces_of, spelling, text_or_base64

MARKER = "_not_finite"
"""Suffix of the name of the column that says which values were not finite."""

_MARKS = ("NaN", "Infinity", "-Infinity", None)


def to_json_lines(table: pa.Table, not_finite: str) -> bytes:
    """Return `json_pieces`, joined."""
    return b"".join(json_pieces(table, not_finite))


def json_pieces(table: pa.Table, not_finite: str) -> Sequence[bytes | pa.Buffer]:
    """Return rows as JSON Lines in UTF-8, in pieces of whole lines. JSON cannot express NaN and the infinities, so they
    are never written as numbers.

    Bytes are text where they are UTF-8, else `{"b64": "..."}`, so that no two values look alike; dates and times are
    ISO 8601, decimals are strings.

    Args:
      not_finite: `null`: such a value is null, and a string column NAME_not_finite, present in every line, says which
        it was (for a list, the first); `string`: it is the string NaN, Infinity or -Infinity.
    """
    columns, binary = {}, {}
    odd = np.zeros(len(table), bool)  # rows that are encoded one by one
    for field, column in zip(table.schema, table.columns, strict=True):
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if (type_ := _without_empty_lists(column.type)) != column.type:
            column = column.cast(type_)
        columns[field.name], strange = _with_text(column)
        if strange is not None:
            odd |= strange
            binary[field.name] = column
        if _is_floating(field.type):
            marks = _marks(column)
            if not_finite == "null":
                none = pa.nulls(len(table), pa.string())
                columns[field.name + MARKER] = (
                    none if marks is None else pa.array(_MARKS, pa.string()).take(pa.array(marks))
                )
            elif marks is not None:
                odd |= marks < len(_MARKS) - 1
    rows = pa.RecordBatch.from_pydict(columns)
    pieces = pieces_of(rows)
    if not odd.any():
        return pieces
    import polars as pl

    # An Arrow column cannot mix numbers and strings, or strings and objects.
    lines = b"".join(pieces).split(b"\n")
    frame = pl.from_arrow(filter_rows(rows, odd))
    assert isinstance(frame, pl.DataFrame)
    at = np.flatnonzero(odd)
    values = {name: column.take(pa.array(at)).to_pylist() for name, column in binary.items()}
    for number, row in enumerate(frame.iter_rows(named=True)):
        row |= {name: rows[number] for name, rows in values.items()}
        lines[at[number]] = orjson.dumps(_spelled(row, not_finite), default=str)
    return [b"\n".join(lines)]


def _without_empty_lists(type_: pa.DataType) -> pa.DataType:
    """Return the type with lists of any length in place of fixed-size lists of size 0, on which Polars panics."""
    if not is_list(type_):
        return type_
    inner = _without_empty_lists(type_.value_type)
    if pa.types.is_fixed_size_list(type_) and not type_.list_size:
        return pa.list_(inner)
    if inner == type_.value_type:
        return type_
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(inner, type_.list_size)
    return pa.large_list(inner) if pa.types.is_large_list(type_) else pa.list_(inner)


def _is_floating(type_: pa.DataType) -> bool:
    """Return whether the type is a float, or a list of floats."""
    while is_list(type_):
        type_ = type_.value_type
    return pa.types.is_floating(type_)


def _is_bytes(type_: pa.DataType) -> bool:
    kinds = ("is_binary", "is_large_binary", "is_fixed_size_binary", "is_binary_view")
    return any(getattr(pa.types, kind)(type_) for kind in kinds)


def _with_text(column: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    """Return the column with strings in place of bytes, at any depth; and the rows with bytes that are not UTF-8,
    which are null in the column."""
    type_ = _text_type(column.type)
    if type_ == column.type:
        return column, None
    if _is_bytes(column.type):
        values = column.cast(pa.binary())
        with contextlib.suppress(pa.ArrowInvalid):
            return values.cast(pa.string()), None
        odd = np.zeros(len(column), bool)
        odd[broken_text(values)] = True
        return pc.if_else(pa.array(odd), pa.scalar(None, pa.binary()), values).cast(pa.string()), odd
    if is_list(column.type) and _is_bytes(leaves(column).type) and not nulls(column).any():
        values, found = _with_text(leaves(column))
        if found is None:
            return with_leaves(column, values), None
        odd = np.zeros(len(column), bool)
        odd[owners(column)[found]] = True
        return with_leaves(column, values), odd
    rows = column.to_pylist()
    odd = np.array([not _is_text(row) for row in rows], bool)
    return pa.array([None if o else _decoded(r) for r, o in zip(rows, odd, strict=True)], type_), odd


def _text_type(type_: pa.DataType) -> pa.DataType:
    if _is_bytes(type_):
        return pa.string()
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_text_type(type_.value_type), type_.list_size)
    if is_list(type_):
        return pa.list_(_text_type(type_.value_type))
    if pa.types.is_map(type_):
        return pa.map_(_text_type(type_.key_type), _text_type(type_.item_type))
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(f.name, _text_type(f.type)) for f in type_])
    return type_


def _is_text(value: Any) -> bool:
    """Return whether all bytes in a value are UTF-8."""
    try:
        _decoded(value)
    except UnicodeDecodeError:
        return False
    return True


def _decoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {k: _decoded(v) for k, v in value.items()}
    return [_decoded(v) for v in value] if isinstance(value, list | tuple) else value


def _marks(column: pa.Array) -> np.ndarray | None:
    """Return for each row the index in `_MARKS` of its first value that is not finite; None if all are finite."""
    flat = leaves(column)
    if flat.null_count:
        rows = owners(column)[flat.is_valid().to_numpy(zero_copy_only=False)]
        flat = flat.drop_null()
    else:
        rows = None
    numbers = flat.to_numpy()
    if not len(numbers) or (np.isfinite(numbers.min()) and np.isfinite(numbers.max())):
        return None
    marks = np.full(len(column), len(_MARKS) - 1)
    bad = np.flatnonzero(~np.isfinite(numbers))
    rows = owners(column) if rows is None else rows
    at, first = np.unique(rows[bad], return_index=True)
    value = numbers[bad[first]]
    marks[at] = np.where(np.isnan(value), 0, np.where(value > 0, 1, 2))
    return marks


def _spelled(value: Any, not_finite: str) -> Any:
    if isinstance(value, bytes):
        return text_or_base64(value)
    if isinstance(value, dict):
        return {k: _spelled(v, not_finite) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):  # also a series of polars
        return [_spelled(v, not_finite) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return spelling(value) if not_finite == "string" else None
    return value
