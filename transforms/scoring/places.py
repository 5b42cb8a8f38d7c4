"""The origin of the rows of a group of blocks, file and row number, for messages about them."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np

from beam_score.transforms.model.in_flight import Rows
from beam_score.transforms.rows.block import ROW, Block
from beam_score.transforms.rows.sources import place


class Places:
    """The origin of the rows of a group of blocks.

    Attributes:
      borders: int64 positions among all rows of the group at which the blocks begin, and the end.
    """

    def __init__(self, blocks: Sequence[Block]):
        self._blocks = blocks
        self.borders = np.cumsum([0, *(b.rows.num_rows for b in blocks)])
        self._ends = self.borders.tolist()
        self._numbers = [b.rows[ROW] for b in blocks]

    def between(self, positions: np.ndarray) -> Rows:
        """Return the rows at some positions."""
        first, last = int(positions.min()), int(positions.max())
        return Rows(len(positions), *self._row(first), *self._row(last))

    def _row(self, position: int) -> tuple[str, int]:
        block = self._block(position)
        return place(self._blocks[block].source, self._numbers[block][position - self._ends[block]].as_py())

    def _block(self, position: int) -> int:
        return bisect.bisect_right(self._ends, position) - 1
