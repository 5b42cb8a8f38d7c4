"""Preparation of blocks for the model: blocks with large outputs are cut, blocks are weighed for scoring in groups."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.rows.block import Block
from beam_score.transforms.rows.faults import NO_REJECTED
from beam_score.transforms.scoring.output_sizes import OutputSizes

MIN_GROUP_ROWS = 1 << 17
"""Rows of a group of blocks, at least. With large groups the small batch left over at the end of a group matters
little: a call costs about 0.16 ms however few rows it has, of 0.55 for 8,192 rows of a small dense model. Against
one block a group, 4% less CPU for the whole job."""

FIRST_ROWS = 16
"""Rows in the first calls of a model with outputs of open shape; the calls show the size of the outputs."""

_BLOCK_BYTES = 1 << 14
"""Fixed overhead of a block, independent of its rows."""

_PIECES = 4
"""A group has room for this many of the largest pieces."""


class Weight:
    """The weight of a block in a group: by its rows, including rejected ones, or by its bytes, including outputs.

    Attributes:
      of_group: the weight of a full group.
    """

    def __init__(self, call: ModelCall):
        self.of_group = max(MIN_GROUP_ROWS, 4 * call.batch_rows)
        self._bytes = call.bounds.group_bytes
        self._sizes, self._inputs = OutputSizes(call), tuple(call.signature.inputs)

    def __call__(self, block: Block) -> int:
        outputs = self._sizes.of_block(block, self._inputs)
        if outputs is None:
            return self.of_group  # a group of its own, from which the size is learned
        share = (_BLOCK_BYTES + block.bytes + outputs) / self._bytes
        # At least 1: BatchElements' estimator divides by it.
        return max(1, block.rows.num_rows + block.rejected.num_rows, int(share * self.of_group))


def pieces(block: Block, call: ModelCall, sizes: OutputSizes) -> Iterator[Block]:
    """Yield the block in pieces whose outputs take at most a part of a group's limit; usually the block itself.

    Each piece is cut by the sizes known when it is requested.
    """
    at, number, most = 0, 0, call.bounds.group_bytes // _PIECES
    while True:
        rest = block if not at else dataclasses.replace(block, rows=block.rows.slice(at))
        left, size = rest.rows.num_rows, sizes.of_block(rest, call.signature.inputs)
        rows = min(left, FIRST_ROWS) if size is None else left if size <= most else max(1, int(left * most // size))
        if rows == left:
            yield dataclasses.replace(rest, piece=number) if number else block
            return
        yield dataclasses.replace(rest, rows=rest.rows.slice(0, rows), piece=number, more=True, total=None)
        # Data that does not belong to single rows goes with the first piece.
        block = dataclasses.replace(block, rejected=NO_REJECTED, tally={})
        at, number = at + rows, number + 1
