"""Bytes that rows take in memory."""

from __future__ import annotations

import pyarrow as pa

_SMALL_BATCH_BYTES = 2 << 20


def batch_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of a batch; of a slice, of its own rows."""
    size = batch.get_total_buffer_size()
    # `nbytes` takes 4 microseconds a column, and matters only where the batch may be a slice of something large.
    return size if size <= _SMALL_BATCH_BYTES else batch.nbytes
