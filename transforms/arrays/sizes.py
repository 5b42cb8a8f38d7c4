"""Memory use of rows, in bytes."""

from __future__ import annotations

import pyarrow as pa

from beam_score.transforms.arrays.recent import recent

_SMALL_BATCH_BYTES = 2 << 20


def batch_bytes(batch: pa.RecordBatch) -> int:
    """Return the bytes of a batch; of a slice, only those of its own rows."""
    size = batch.get_total_buffer_size()
    # The exact size only matters if the batch may be a slice of something large.
    return size if size <= _SMALL_BATCH_BYTES else own_bytes(batch)


def own_bytes(batch: pa.RecordBatch) -> int:
    """Return the bytes of the rows of a batch, like its `nbytes`, which takes 2 microseconds per column: numbers are
    counted by their width, with or without a bit for nulls."""
    row_bits, others = _widths(batch.schema)
    return batch.num_rows * row_bits // 8 + sum(batch.column(index).nbytes for index in others)


@recent
def _widths(schema: pa.Schema) -> tuple[int, list[int]]:
    """Return the bits of a row in all columns of fixed width, and the positions of the other columns."""
    bits, others = 0, []
    for index, type_ in enumerate(schema.types):
        if pa.types.is_primitive(type_):
            bits += type_.bit_width
        else:
            others.append(index)
    return bits, others
