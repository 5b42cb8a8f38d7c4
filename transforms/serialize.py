"""Rows as serialized tf.Examples, for models that take nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

RECORD = "#record"
"""Name of the binary column that holds the record itself, as TFRecord has it."""


def serialize(rows: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    """Columns encoded as one tf.Example a row, in C++: floats as float_list, integers and booleans as
    int64_list, text as bytes_list; values of a shape flat, in row-major order. A null has no feature."""
    from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

    columns = {name: _lists(rows[name]) for name in names}
    encoded = RecordBatchToExamplesEncoder().encode(pa.RecordBatch.from_pydict(columns))
    return pa.array(encoded, pa.binary())


def _lists(column: pa.Array) -> pa.Array:
    """A column as one flat list a row, as the encoder takes it."""
    valid = column.is_valid().to_numpy(zero_copy_only=False).astype("int64")
    flat, widths = column, valid
    while pa.types.is_nested(flat.type):
        if not pa.types.is_fixed_size_list(flat.type):
            raise ValueError("columns of open shape cannot be serialized")
        widths = widths * flat.type.list_size
        flat = flat.flatten()
    offsets = pa.array([0, *widths.cumsum().tolist()], pa.int32())
    return pa.ListArray.from_arrays(offsets, _plain(flat.drop_null()))


def _plain(values: pa.Array) -> pa.Array:
    if pa.types.is_floating(values.type):
        return values.cast(pa.float32())
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return values.cast(pa.binary())
    return values.cast(pa.int64())
