"""How much a worker thread may hold at once, in bytes, derived from the memory that its process may take."""

from __future__ import annotations

import dataclasses

_MIB = 1 << 20
_LEAST_BYTES = 64 * _MIB
_MOST_BYTES = 2048 * _MIB
"""Of a thread. More memory makes nothing faster; with less than the minimum nothing would get through."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Bounds for one worker thread; each step of the chain keeps to its own. No result depends on them.

    A single row is never cut: where one takes more than a bound, it is held alone.

    Attributes:
      block_bytes: input bytes of a block.
      decoded_bytes: of columns that a reader decodes before it gives out the first row.
      group_bytes: of the blocks that wait for the model together, with their dead letters, the bytes
        that they were parsed from, and the outputs that the model will add.
      call_bytes: of the inputs and outputs of one call of the model.
      writer_bytes: of the rows of one kind (predictions, dead letters) that wait to be encoded.
      part_bytes: of an encoded part file, which is held until it is written.
      block_rows: rows of a block: what is known of a refused row takes some hundred bytes, however short it is.
    """

    block_bytes: int = 32 * _MIB
    decoded_bytes: int = 64 * _MIB
    group_bytes: int = 128 * _MIB
    call_bytes: int = 128 * _MIB
    writer_bytes: int = 64 * _MIB
    part_bytes: int = 128 * _MIB
    block_rows: int = 65536

    @property
    def model_bytes(self) -> int:
        """Of one call, what the model holds on the way included: by it the default of `batch_rows` is made."""
        return 2 * self.call_bytes


DEFAULT_BOUNDS = Bounds()
"""With enough memory."""


def bounds_of(free_bytes: int, workers: int) -> Bounds:
    """The bounds of each worker thread of a process.

    The shares leave room for the copies that are made on the way: columns as read, as tensors, as
    outputs and as predictions, a table and its encoded form.

    Args:
      free_bytes: memory of the process, without its libraries and the model.
      workers: threads that share it.
    """
    own = min(max(free_bytes // workers, _LEAST_BYTES), _MOST_BYTES)
    return Bounds(
        block_bytes=own // 64,
        decoded_bytes=own // 32,
        group_bytes=own // 16,
        call_bytes=own // 16,
        writer_bytes=min(own // 16, Bounds.writer_bytes),
        part_bytes=min(own // 8, Bounds.part_bytes),
        block_rows=min(own // 4096, Bounds.block_rows),
    )
