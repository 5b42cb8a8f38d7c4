"""Memory use of rows, in bytes."""

from __future__ import annotations

import pyarrow as pa

_SMALL_BATCH_BYTES = 2 << 20


def batch_bytes(batch: pa.RecordBatch) -> int:
    """Return the bytes of a batch; of a slice, only those of its own rows."""
    size = batch.get_total_buffer_size()
    # `nbytes` takes 4 microseconds per column, and only matters if the batch may be a slice of something large.
    return size if size <= _SMALL_BATCH_BYTES else batch.nbytes
