"""Columns of numbers as one array. A call for each column takes longer than its values if a block has thousands of
columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.recent import recent


def matrix(rows: pa.RecordBatch, names: Sequence[str]) -> np.ndarray | None:
    """Return columns side by side, as a new array [rows, columns] of their dtype.

    Returns None if they are not numbers of one type, if one of them contains a null, or without rows.
    """
    columns = _of_one_type(rows.schema, tuple(names))
    if columns is None or not rows.num_rows:
        return None
    try:
        return rows.select(columns).to_tensor(row_major=True).to_numpy()
    except pa.ArrowTypeError:  # a null
        return None


def extremes(rows: pa.RecordBatch, columns: list[int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the least and the greatest value of each of some columns of numbers of one type, [columns]; both are NaN
    if a value is NaN or null. Returns None for integers with nulls.

    Args:
      rows: at least one.
      columns: their positions.
    """
    if not columns:
        return np.array([]), np.array([])
    is_float = pa.types.is_floating(rows.schema.field(columns[0]).type)
    try:
        values = rows.select(columns).to_tensor(null_to_nan=is_float, row_major=False).to_numpy()
    except pa.ArrowTypeError:
        return None
    return values.min(axis=0), values.max(axis=0)


@recent
def _of_one_type(schema: pa.Schema, names: tuple[str, ...]) -> list[int] | None:
    """Return the positions of columns of numbers of one type; None if they are something else."""
    columns = [schema.get_field_index(name) for name in names]
    if -1 in columns:
        return None
    types = {schema.field(index).type for index in columns}
    is_number = len(types) == 1 and all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in types)
    return columns if is_number else None
