"""The limits of a contract's numbers, tried for many columns at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.matrix import extremes
from beam_score.transforms.arrays.plain import numpy_type

if TYPE_CHECKING:
    from beam_score.transforms.contract.columns import Column

_LEAST_COLUMNS = 8
"""Fewer columns of a type are judged faster one by one, without a copy."""


@dataclasses.dataclass(frozen=True)
class _Alike:
    """Columns of one type in rows of one schema."""

    names: list[str]
    positions: list[int]
    low: np.ndarray
    high: np.ndarray

    def without_nulls(self, rows: pa.RecordBatch) -> _Alike:
        """Return the columns in which no row is null."""
        kept = [i for i, position in enumerate(self.positions) if not rows.column(position).null_count]
        positions = [self.positions[i] for i in kept]
        return _Alike([self.names[i] for i in kept], positions, self.low[kept], self.high[kept])


class Limits:
    """Finds the columns that are valid as they are: usually all of them.

    Args:
      columns: of a contract, by name.
    """

    def __init__(self, columns: Mapping[str, Column]):
        self._columns = {n: c for n, c in columns.items() if c.is_numeric and not c.shape and c.allowed is None}
        self._known: tuple[pa.Schema, list[_Alike]] | None = None

    @property
    def are_many(self) -> bool:
        """True if there are enough of them for it to be faster."""
        return len(self._columns) >= _LEAST_COLUMNS

    def held(self, rows: pa.RecordBatch) -> set[str]:
        """Return names of columns in which every row has a number of the column's type that is finite and inside its
        range. Others may be valid, too: `transforms.scoring.validate` judges them."""
        held: set[str] = set()
        if not self.are_many:
            return held
        known = self._known
        if known is None or known[0] != rows.schema:
            known = self._known = (rows.schema, self._alike(rows.schema))
        for alike in known[1]:
            if not rows.num_rows:
                held.update(alike.names)
                continue
            if (found := extremes(rows, alike.positions)) is None:
                alike = alike.without_nulls(rows)
                found = extremes(rows, alike.positions)
            assert found is not None
            least, most = found
            inside = (least >= alike.low) & (most <= alike.high) & np.isfinite(least) & np.isfinite(most)
            held.update(name for name, holds in zip(alike.names, inside.tolist(), strict=True) if holds)
        return held

    def _alike(self, schema: pa.Schema) -> list[_Alike]:
        of_type: dict[pa.DataType, dict[str, int]] = {}
        for name, column in self._columns.items():
            position = schema.get_field_index(name)
            if position != -1 and schema.field(position).type == column.scalar_type:
                of_type.setdefault(column.scalar_type, {})[name] = position
        alike = []
        for type_, positions in of_type.items():
            if len(positions) >= _LEAST_COLUMNS:
                limits = [self._columns[name].limits for name in positions]
                low, high = np.array(limits, numpy_type(type_)).T
                alike.append(_Alike([*positions], [*positions.values()], low, high))
        return alike
