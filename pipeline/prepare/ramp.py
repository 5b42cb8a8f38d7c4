"""Model calls on increasing numbers of rows, each measured before a larger one is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from beam_score.pipeline.prepare.first_blocks import head
from beam_score.pipeline.prepare.independence import without_outputs
from beam_score.transforms.common.peak_memory import resident_bytes, with_peak
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.model import Model
from beam_score.transforms.rows.block import Block
from beam_score.transforms.scoring.score import Scorer

_STEP = 4
"""Factor by which the rows of each call exceed those of the call before."""


class Ramp:
    """Finds how many rows of a sample a call may have.

    Attributes:
      call_rows: rows of the largest call.
      call_bytes: growth of the process's memory in that call.
      row_bytes: the part of it that each row adds.
      limit: see `Trial`.
    """

    def __init__(self, call: ModelCall, servable: Model, asked: int, blocks: Sequence[Block]):
        self._call, self._servable, self._blocks = call, servable, blocks
        self._rows = sum(b.rows.num_rows for b in blocks)
        self._asked = call.fixed_rows or max(1, min(dataclasses.replace(call, batch_rows=asked).most_rows, self._rows))
        self._may = call.bounds.model_bytes
        self.call_rows, self.call_bytes, self.row_bytes = 0, 0, 0.0
        self.limit: int | None = None

    def climb(self) -> list[Block]:
        """Score all rows, with calls as large as requested, or as memory allows.

        Raises:
          EveryRowFails: see `transforms.scoring.halving`.
        """
        size = self._call.fixed_rows or 1
        if self._call.deadline_s is not None:
            self._scorer(size).warm_up()
        if not self._rows:
            return self._score(size)[0]
        self._measured(size)  # a first call also allocates memory that is not due to its rows
        before = resident_bytes()
        while True:
            scored, limit, peak = self._measured(size)
            self._learn(size, max(0, peak - before))
            if limit < size:
                self.limit = self.call_rows = limit
                break
            if (larger := self._larger(size)) <= size:
                break
            size = larger
        return scored if size >= self._rows else self._score(self.call_rows)[0]

    def find_limit(self, blocks: Sequence[Block]) -> None:
        """Set `limit` if the model refuses rows together that it accepts separately."""
        _, limit = self._score(self.call_rows, [without_outputs(b) for b in blocks])
        if limit < self.call_rows:
            self.limit = self.call_rows = limit

    def _learn(self, size: int, grown: int) -> None:
        # Memory that earlier calls left allocated hides part of the growth: never more than they took.
        self.row_bytes = max(grown / size, (grown - self.call_bytes) / (size - self.call_rows))
        self.call_rows, self.call_bytes = size, max(self.call_bytes, grown)

    def _larger(self, size: int) -> int:
        fit = int((self._may - self.call_bytes) // max(self.row_bytes, 1))
        return min(self._asked, size * _STEP, size + fit)

    def _measured(self, size: int) -> tuple[list[Block], int, int]:
        """Call the model on the first rows; return the results, the rows per call that passed, and the peak memory."""
        blocks = self._blocks if size >= self._rows else head(self._blocks, size)
        (scored, limit), peak = with_peak(lambda: self._score(size, blocks))
        return scored, limit, peak

    def _score(self, size: int, blocks: Sequence[Block] | None = None) -> tuple[list[Block], int]:
        scorer = self._scorer(size)
        return scorer.score(self._blocks if blocks is None else blocks), scorer.limit

    def _scorer(self, size: int) -> Scorer:
        return Scorer(dataclasses.replace(self._call, batch_rows=size), self._servable)
