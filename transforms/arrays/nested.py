"""Conversion of record batch columns to tensors and back, without a Python object per row (except for strings, which
TensorFlow takes from Python only as arrays of objects).

Columns here contain no nulls: `nulls` finds the rows to reject before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def leaves(column: pa.Array) -> pa.Array:
    """Return the single values of a column of lists, in row-major order; of a slice, only its own."""
    while pa.types.is_nested(column.type):
        column = column.flatten()
    return column


def with_leaves(column: pa.Array, values: pa.Array) -> pa.Array:
    """Return the same lists with other single values, of the same number."""
    if not pa.types.is_nested(column.type):
        return values
    inner = with_leaves(column.flatten(), values)
    if pa.types.is_fixed_size_list(column.type):
        return pa.FixedSizeListArray.from_arrays(inner, column.type.list_size)
    offsets = column.offsets.to_numpy()
    return pa.ListArray.from_arrays(pa.array(offsets - offsets[0]), inner)


def dimensions(type_: pa.DataType) -> tuple[tuple[int | None, ...], pa.DataType]:
    """Return the shape of one row of a column, None for lists of any length; and the type of its single values."""
    shape = []
    while pa.types.is_nested(type_):
        shape.append(type_.list_size if pa.types.is_fixed_size_list(type_) else None)
        type_ = type_.value_type
    return tuple(shape), type_


def fixed(shape: Sequence[int | None]) -> tuple[int, ...]:
    """Return a shape that has no open dimension; raises ValueError if it has one."""
    sizes = tuple(size for size in shape if size is not None)
    if len(sizes) < len(shape):
        raise ValueError(f"an open dimension in {tuple(shape)}")
    return sizes


def to_numpy(column: pa.Array, tail: Sequence[int]) -> np.ndarray:
    """Return a column as an array of shape [rows, *tail]: a read-only view for numbers, an array of bytes
    objects for text.

    Args:
      column: scalars, or lists with math.prod(tail) values per row.
    """
    values = leaves(column)
    if pa.types.is_string(values.type):
        values = values.cast(pa.binary())
    copied = pa.types.is_boolean(values.type) or pa.types.is_binary(values.type)
    return values.to_numpy(zero_copy_only=not copied).reshape(len(column), *tail)


def to_arrow(tensor: np.ndarray, type_: pa.DataType | None = None) -> pa.Array:
    """Return an array of shape [rows, ...] as a column: one level of lists per dimension after the first.

    Args:
      tensor: numbers, or objects that are bytes.
      type_: of the column; None for fixed-size lists of the array's own dtype.
    """
    flat = np.ascontiguousarray(tensor).reshape(-1)
    column = pa.array(flat, pa.binary()) if flat.dtype == object else pa.array(flat)
    shape, single = dimensions(type_) if type_ is not None else (tensor.shape[1:], column.type)
    if column.type != single:
        column = column.cast(single)
    for level in range(len(shape), 0, -1):
        lists, size = int(np.prod(tensor.shape[:level])), tensor.shape[level]
        if shape[level - 1] is None:
            column = pa.ListArray.from_arrays(pa.array(np.arange(lists + 1) * size, pa.int32()), column)
        elif size:
            column = pa.FixedSizeListArray.from_arrays(column, size)
        else:  # Arrow cannot make a fixed-size list of size 0 from its parts
            column = pa.array([[]] * lists, pa.list_(column.type, 0))
    return column


def owners(column: pa.Array) -> np.ndarray:
    """Return the row that each single value belongs to, int64 [values]."""
    rows = np.arange(len(column))
    while pa.types.is_nested(column.type):
        rows = rows[pc.list_parent_indices(column).to_numpy()]
        column = column.flatten()
    return rows


def nulls(column: pa.Array) -> np.ndarray:
    """Return which rows are null or contain a null, bool [rows]."""
    found, rows = np.zeros(len(column), bool), np.arange(len(column))
    while True:
        if column.null_count:
            found[rows[column.is_null().to_numpy(zero_copy_only=False)]] = True
        if not pa.types.is_nested(column.type):
            return found
        rows = rows[pc.list_parent_indices(column).to_numpy()]
        column = column.flatten()


def not_finite(column: pa.Array) -> np.ndarray | None:
    """Return which rows contain a NaN or an infinity, bool [rows]; None if no row does."""
    values = leaves(column)
    if not pa.types.is_floating(values.type) or not len(values):
        return None
    numbers = values.to_numpy()
    if np.isfinite(numbers.min()) and np.isfinite(numbers.max()):  # NaN makes both NaN
        return None
    bad = ~np.isfinite(numbers)
    rows = np.zeros(len(column), bool)
    rows[owners(column)[bad]] = True
    return rows


def row_shapes(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the shapes of rows of any lengths.

    Returns:
      int64 [rows, levels], with the longest of inner lists; and bool [rows], whether inner lists of a row
      differ in length, so that it is not a tensor.
    """
    count = len(column)
    shapes, ragged, rows = [], np.zeros(count, bool), np.arange(count)
    while pa.types.is_nested(column.type):
        if pa.types.is_fixed_size_list(column.type):
            longest = np.full(count, column.type.list_size)
            rows = np.repeat(rows, column.type.list_size)
        else:
            lengths = pc.list_value_length(column).to_numpy().astype(np.int64)
            longest = np.zeros(count, np.int64)
            np.maximum.at(longest, rows, lengths)
            ragged[rows[lengths != longest[rows]]] = True
            rows = np.repeat(rows, lengths)
        shapes.append(longest)
        column = column.flatten()
    return np.stack(shapes, axis=1) if shapes else np.zeros((count, 0), np.int64), ragged


def padded(column: pa.Array, pad: float | str | bool, shapes: np.ndarray | None = None) -> np.ndarray:
    """Return rows of different shapes as [rows, ...], each dimension padded with `pad` to the longest.

    Args:
      shapes: of the rows (`row_shapes`), if known.
    """
    shapes = row_shapes(column)[0] if shapes is None else shapes
    size = list(shapes.max(axis=0, initial=0))
    if len(size) == 1:  # by far the most frequent case, and three times as fast as the general one
        values = to_numpy(leaves(column), ())
        out = np.full((len(column), size[0]), pad.encode() if isinstance(pad, str) else pad, values.dtype)
        out[np.arange(size[0]) < shapes] = values
        return out
    at, lists = [np.arange(len(column))], column
    while pa.types.is_nested(lists.type):
        parents = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
        starts = np.searchsorted(parents, np.arange(len(lists)))
        at = [a[parents] for a in at]
        at.append(np.arange(len(parents)) - starts[parents])
        lists = lists.flatten()
    values = to_numpy(lists, ())
    out = np.full((len(column), *size), pad.encode() if isinstance(pad, str) else pad, values.dtype)
    out[tuple(at)] = values
    return out
