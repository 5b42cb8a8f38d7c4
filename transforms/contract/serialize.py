"""Rows as serialized tf.Examples, for models that only take these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.nested import leaves

RECORD = "#record"
"""Name of the binary column with the original record of a TFRecord file."""


def serialize(columns: Sequence[pa.Array], names: Sequence[str]) -> pa.Array:
    """Encode columns without nulls as one tf.Example per row, in C++ (tfx_bsl): floats as float_list,
    integers and booleans as int64_list, text as bytes_list; shaped values are flattened in row-major order.

    Args:
      names: of the features. A tf.Example cannot represent uint64 (see `transforms.contract.binding`).
    """
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    batch = pa.RecordBatch.from_arrays([_flat_lists(c) for c in columns], list(names))
    return pa.array(RecordBatchToExamplesEncoder().encode(batch), pa.binary())


def _flat_lists(column: pa.Array) -> pa.Array:
    """Return a column with one list per row, as the encoder requires."""
    offsets, lists = np.arange(len(column) + 1), column
    while pa.types.is_nested(lists.type):
        if pa.types.is_fixed_size_list(lists.type):
            offsets = offsets * lists.type.list_size
        else:
            inner = lists.offsets.to_numpy()
            offsets = (inner - inner[0])[offsets]
        lists = lists.flatten()
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _plain(leaves(column)))


def _plain(values: pa.Array) -> pa.Array:
    if pa.types.is_floating(values.type):
        return values.cast(pa.float32())
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return values.cast(pa.binary())
    return values.cast(pa.int64())
