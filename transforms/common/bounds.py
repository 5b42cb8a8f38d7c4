"""Memory bounds of a worker thread, in bytes, derived from the memory of its process."""

from __future__ import annotations

import dataclasses

_MIB = 1 << 20
_LEAST_BYTES = 64 * _MIB
_MOST_BYTES = 2048 * _MIB
"""Per thread. More memory does not increase speed; less than the minimum would not be enough for any work."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Bounds for one worker thread; each step of the chain observes its own. No result depends on them.

    A single row is never cut: a row that exceeds a bound is processed alone.

    Attributes:
      block_bytes: input bytes of a block.
      decoded_bytes: columns that a reader decodes before it yields the first row.
      group_bytes: blocks that wait for the model together, with their dead letters, the bytes that they were parsed
        from, and the outputs that the model will add.
      call_bytes: inputs and outputs of one call of the model.
      writer_bytes: rows of one kind (predictions, dead letters) that wait to be encoded.
      part_bytes: an encoded part file, which is in memory until it is written.
      block_rows: rows of a block; the record of a rejected row takes some hundred bytes, however short the row is.
    """

    block_bytes: int = 32 * _MIB
    decoded_bytes: int = 64 * _MIB
    group_bytes: int = 64 * _MIB
    call_bytes: int = 128 * _MIB
    writer_bytes: int = 64 * _MIB
    part_bytes: int = 128 * _MIB
    block_rows: int = 262144

    @property
    def model_bytes(self) -> int:
        """Bytes of one call, including the model's intermediate values; determines the default of `batch_rows`."""
        return 2 * self.call_bytes


DEFAULT_BOUNDS = Bounds()
"""Bounds for enough memory."""


def bounds_of(free_bytes: int, workers: int) -> Bounds:
    """Return the bounds of each worker thread of a process.

    The shares leave room for the intermediate copies: columns as read, as tensors, as outputs and as predictions, a
    table and its encoded form.

    Args:
      free_bytes: memory of the process, without its libraries and the model.
      workers: threads that share it.
    """
    own = min(max(free_bytes // workers, _LEAST_BYTES), _MOST_BYTES)
    return Bounds(
        block_bytes=own // 64,
        decoded_bytes=own // 32,
        group_bytes=min(own // 16, Bounds.group_bytes),
        call_bytes=own // 16,
        writer_bytes=min(own // 16, Bounds.writer_bytes),
        part_bytes=min(own // 8, Bounds.part_bytes),
        block_rows=min(own // 4096, Bounds.block_rows),
    )
