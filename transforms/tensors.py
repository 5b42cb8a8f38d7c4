"""Columns of a record batch as tensors, and back, without a Python object a row (strings apart:
TensorFlow takes them from Python only as arrays of objects)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.saved_model import Tensor


def to_numpy(column: pa.Array, tail: Sequence[int]) -> np.ndarray:
    """A column without nulls as an array of shape [rows, *tail]; zero-copy for numbers.

    Args:
      column: scalars, or lists that hold math.prod(tail) values a row.
    """
    values = column
    while pa.types.is_nested(values.type):
        values = values.flatten()
    if pa.types.is_boolean(values.type):
        flat = values.to_numpy(zero_copy_only=False)
    elif pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        flat = values.cast(pa.binary()).to_numpy(zero_copy_only=False)
    else:
        flat = values.to_numpy()
    return flat.reshape(len(column), *tail)


def to_arrow(tensor: np.ndarray, type_: pa.DataType | None = None) -> pa.Array:
    """An array of shape [rows, ...] as a column: fixed-size lists, one level a dimension.

    Args:
      type_: of the single values; None for that of the dtype. Objects are bytes, or text where UTF-8.
    """
    flat = np.ascontiguousarray(tensor).reshape(-1)
    if flat.dtype == object:
        column = pa.array(flat, pa.binary())
        if type_ is not None:
            column = column.cast(type_)
    else:
        column = pa.array(flat) if type_ is None else pa.array(flat).cast(type_)
    for size in reversed(tensor.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size) if size else _empty_lists(column, tensor)
    return column


def _empty_lists(column: pa.Array, tensor: np.ndarray) -> pa.Array:
    rows = math.prod(tensor.shape[:-1])
    return pa.nulls(rows, pa.list_(column.type, 0)) if not rows else pa.array([[]] * rows, pa.list_(column.type, 0))


def list_shapes(column: pa.Array) -> np.ndarray:
    """The lengths of each row's lists, int64 [rows, levels]; of ragged inner lists the longest, with
    -1 added where they differ, so that such a row is alike to none."""
    levels, values, parents = [], column, np.arange(len(column))
    while pa.types.is_nested(values.type):
        fixed = pa.types.is_fixed_size_list(values.type)
        lengths = np.full(len(values), values.type.list_size) if fixed else pc.list_value_length(values).to_numpy()
        longest = np.zeros(len(column), np.int64)
        np.maximum.at(longest, parents, lengths)
        levels.append(longest)
        parents = np.repeat(parents, lengths)
        values = values.flatten()
    return np.stack(levels, axis=1) if levels else np.zeros((len(column), 0), np.int64)


def output_type(tensor: Tensor) -> pa.DataType:
    """The Arrow type of a model's output: binary for string, float32 for bfloat16; lists, one level
    a dimension after the first, fixed-size where the dimension is."""
    names = {"bfloat16": "float32", "float16": "float16", "string": "binary", "bool": "bool"}
    type_ = pa.type_for_alias(names.get(tensor.dtype, tensor.dtype))
    for size in reversed(tensor.shape[1:]):
        type_ = pa.list_(type_) if size is None else pa.list_(type_, size)
    return type_
