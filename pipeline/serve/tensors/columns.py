"""Tensors as the columns of a contract, and predictions as tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.pipeline.serve.tensors.read_json import Refused, check_rows
from beam_score.transforms.arrays.nested import dimensions, leaves, row_shapes, to_arrow, to_numpy, with_leaves
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.contract.values import fits


def columns_of(feeds: Mapping[str, np.ndarray], known: Mapping[str, Column], most_rows: int) -> pa.RecordBatch:
    """Return tensors as columns, the first dimension being the rows.

    Args:
      known: the columns of the contract.
      most_rows: of a request.

    Raises:
      Refused: the contract does not have the column or it is of another type, or the tensors differ in their rows.
    """
    check_known(feeds, known)
    rows = {len(feed) if feed.ndim else None for feed in feeds.values()}
    if len(rows) != 1 or None in rows or 0 in rows:
        raise Refused("expected tensors with the same first dimension, the rows, of at least 1")
    (count,) = rows
    check_rows(count or 0, most_rows)
    batch = pa.RecordBatch.from_pydict({name: to_arrow(feed) for name, feed in feeds.items()})
    faults = [
        _fault(name, feeds[name], known[name])
        for name, type_ in zip(batch.schema.names, batch.schema.types, strict=True)
        if not fits(type_, known[name])
    ]
    if faults:
        raise Refused("; ".join(fault["message"] for fault in faults[:3]), faults=faults)
    return batch


def check_known(names: Iterable[str], known: Collection[str]) -> None:
    """Raise Refused if the contract does not have a column."""
    if unknown := sorted(set(names) - set(known)):
        raise Refused(f"the contract has no column {unknown[0][:100]!r}: expected {', '.join(known)}")


def _fault(name: str, feed: np.ndarray, column: Column) -> dict[str, Any]:
    """Return the fault of a tensor of another dtype or rank than its column."""
    dtype = "bytes" if feed.dtype == object else feed.dtype
    message = f"column {name!r} is {dtype}{list(feed.shape[1:]) or ''} in each row, expected {column.describe()}"
    reason = "wrong_shape" if feed.ndim != 1 + len(column.shape) else "wrong_type"
    return {"index": 0, "column": name, "reason": reason, "message": message}


def prediction_tensors(predictions: pa.RecordBatch) -> dict[str, np.ndarray]:
    """Return predictions as tensors. A tensor has no null: a class that is not chosen is -1, its label is empty.

    Raises:
      Refused: the rows of a column differ in their shape.
    """
    made = {}
    for name, column in zip(predictions.schema.names, predictions.columns, strict=True):
        values = leaves(column)
        if values.null_count:
            text = pa.types.is_string(values.type) or pa.types.is_binary(values.type)
            nothing = "" if text else np.nan if pa.types.is_floating(values.type) else -1
            column = with_leaves(column, pc.fill_null(values, pa.scalar(nothing).cast(values.type)))
        made[name] = to_numpy(column, _row_shape(name, column))
    return made


def _row_shape(name: str, column: pa.Array) -> list[int]:
    """Return the shape of each row. Raises Refused."""
    if not len(column):
        return [size or 0 for size in dimensions(column.type)[0]]
    shapes, ragged = row_shapes(column)
    if ragged.any() or (shapes != shapes[0]).any():
        raise Refused(f"output {name!r} has rows of different shapes, which a tensor cannot hold: ask for JSON rows")
    return [int(size) for size in shapes[0]]
