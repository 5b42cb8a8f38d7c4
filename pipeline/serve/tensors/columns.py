"""Tensors as the columns of a contract, and predictions as tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.pipeline.serve.tensors.read_json import Refused
from beam_score.transforms.arrays.nested import dimensions, fixed, leaves, to_arrow, to_numpy, with_leaves


def columns_of(feeds: Mapping[str, np.ndarray], known: Collection[str], most_rows: int) -> pa.RecordBatch:
    """Return tensors as columns, the first dimension being the rows.

    Args:
      known: the columns of the contract.
      most_rows: of a request.

    Raises:
      Refused: the contract does not have the column, or the tensors differ in their rows.
    """
    if unknown := sorted(set(feeds) - set(known)):
        raise Refused(f"the contract has no column {unknown[0][:100]!r}: expected {', '.join(known)}")
    rows = {len(feed) if feed.ndim else None for feed in feeds.values()}
    if len(rows) != 1 or None in rows or 0 in rows:
        raise Refused("expected tensors with the same first dimension, the rows, of at least 1")
    (count,) = rows
    if count is not None and count > most_rows:
        raise Refused(f"{count:,} rows, more than serve.limits.rows {most_rows:,}", 413)
    return pa.RecordBatch.from_pydict({name: to_arrow(feed) for name, feed in feeds.items()})


def prediction_tensors(predictions: pa.RecordBatch) -> dict[str, np.ndarray]:
    """Return predictions as tensors. A tensor has no null: a class that is not chosen is -1, its label is empty."""
    made = {}
    for name, column in zip(predictions.schema.names, predictions.columns, strict=True):
        values = leaves(column)
        if values.null_count:
            text = pa.types.is_string(values.type) or pa.types.is_binary(values.type)
            nothing = "" if text else np.nan if pa.types.is_floating(values.type) else -1
            column = with_leaves(column, pc.fill_null(values, pa.scalar(nothing).cast(values.type)))
        made[name] = to_numpy(column, fixed(dimensions(column.type)[0]))
    return made
