"""Blocks before the model: cut where their outputs would be large, and weighed for groups that are scored together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.rows.block import Block
from beam_score.transforms.rows.faults import NO_REJECTED
from beam_score.transforms.scoring.output_sizes import OutputSizes

MIN_GROUP_ROWS = 1 << 17
"""Some blocks together, so that the small batch left over at the end of a group weighs little: a call
costs about 0.16 ms however few rows it has, of 0.55 for 8,192 rows of a small dense model. Against one
block a group, 4% less CPU for the whole job."""

FIRST_ROWS = 16
"""In the first calls of a model whose outputs are of open shape: what they take is known from then on."""

_BLOCK_BYTES = 1 << 14
"""What a block takes however few its rows are."""

_PIECES = 4
"""A group has room for so many of the largest pieces."""


class Weight:
    """The weight of a block in a group: by its rows, refused ones included, or by its bytes, outputs included.

    Attributes:
      of_group: of all blocks together.
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
    """The block in pieces whose outputs take no more than a part of what a group may; mostly the block itself.

    Each piece is cut by what is known when it is asked for.
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
        # What is not of single rows goes with the first piece.
        block = dataclasses.replace(block, rejected=NO_REJECTED, tally={})
        at, number = at + rows, number + 1
