"""Counts of rejected rows by reason and column, each with an example."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from beam_score.transforms.rows.redact import without_values

if TYPE_CHECKING:  # `status` adds counts, and does not wait for Arrow
    import pyarrow as pa

    from beam_score.transforms.rows.sources import Source

_MOST_EXAMPLES = 100
_MOST_ON_RECORD = 100


@dataclasses.dataclass
class Rejection:
    """Rejections for one reason in one column.

    Attributes:
      reason: a reason code.
      column: null if the whole row, or the file, is at fault.
      rows: number of rejected rows whose first fault it is.
      also: number of rejected rows that have it after an earlier fault, so that counts of first faults miss it.
      stretches: number of files, or of sections of unknown length.
      source, row: the file and row number of the example: the first by path and number, so that it does not depend on
        the order in which blocks and splits end; null if there are too many pairs for an example of each.
      message: of the example, without values of its row.
    """

    reason: str
    column: str | None
    rows: int = 0
    also: int = 0
    stretches: int = 0
    source: str | None = None
    row: int | None = None
    message: str | None = None

    def comes_after(self, source: str, row: int | None) -> bool:
        """Return whether another row precedes the example, or there is no example yet."""
        return self.source is None or (source, row or 0) < (self.source, self.row or 0)


class Rejections:
    """Sums by reason and column. A receipt contains the sums of its split; a manifest, the largest sums of the run."""

    def __init__(self, found: Iterable[Rejection] = ()):
        self._found = {(one.reason, one.column): one for one in found}

    def add_letters(self, rejected: pa.RecordBatch, source: Source) -> None:
        """Add the dead letters of a block, in `REJECTED_SCHEMA`."""
        if not rejected.num_rows:
            return
        import numpy as np
        import pyarrow.compute as pc

        from beam_score.transforms.arrays.plain import distinct_pairs, nulls_of
        from beam_score.transforms.rows.sources import place

        pairs, index, first = distinct_pairs(rejected["reason"], rejected["column"])
        rows = rejected["rows"]
        sums = np.bincount(index, pc.fill_null(rows, 0).to_numpy(), len(pairs)).astype(int).tolist()
        stretches = np.bincount(index[nulls_of(rows)], minlength=len(pairs)).tolist()
        firsts = dict(zip(pairs, np.bincount(index).tolist(), strict=True))
        for pair, count, unknown, at in zip(pairs, sums, stretches, first, strict=True):  # not one a row
            own = self._of(*pair)
            own.rows += count
            own.stretches += unknown
            if own.source is not None or len(self._found) <= _MOST_EXAMPLES:
                path, row = place(source, rejected["row"][at].as_py())
                if own.comes_after(path, row):
                    own.source, own.row = path, row
                    own.message = without_values(rejected["message"][at].as_py())
        faults = rejected["errors"].flatten()
        if len(faults) == rejected.num_rows:  # no row has a second one
            return
        pairs, index, _ = distinct_pairs(faults.field("reason"), faults.field("column"))
        for pair, count in zip(pairs, np.bincount(index).tolist(), strict=True):
            self._of(*pair).also += max(0, count - firsts.get(pair, 0))

    def add(self, others: Iterable[Rejection]) -> None:
        """Add the sums of a receipt."""
        for other in others:
            own = self._of(other.reason, other.column)
            own.rows += other.rows
            own.also += other.also
            own.stretches += other.stretches
            if other.source is not None and own.comes_after(other.source, other.row):
                own.source, own.row, own.message = other.source, other.row, other.message

    def all(self) -> tuple[Rejection, ...]:
        """Return all rejections, for a receipt."""
        return tuple(self._found.values())

    def largest(self) -> list[dict[str, Any]]:
        """Return the 100 rejections with the most rows, the largest first, for a manifest."""
        ordered = sorted(self._found.values(), key=lambda r: (-r.rows, -r.stretches, r.reason, r.column or ""))
        return [dataclasses.asdict(one) for one in ordered[:_MOST_ON_RECORD]]

    def _of(self, reason: str, column: str | None) -> Rejection:
        return self._found.setdefault((reason, column), Rejection(reason, column))
