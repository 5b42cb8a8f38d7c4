"""Numbers straight from CSV, where pyarrow's own parser can be trusted with them.

It parses numbers in half the time that text takes to be cast later, but it fails a whole block for
one bad value, reads 0x10 as 16, and does not tell 1e400 from inf. So a column goes this way only while
every value in it is a number inside the contract's limits; from the first block on where one is not,
the column is read as text for the rest of the range, and `transforms.scoring.validate` judges it. A value that
goes this way would be judged good, and the same, on the other: nothing depends on which was taken.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from beam_score.transforms.contract.columns import Column

_COLUMN = re.compile(r"In CSV column #([0-9]+):")


class TypedColumns:
    """The columns that go this way, by name.

    Args:
      columns: the contract's.
    """

    def __init__(self, columns: dict[str, Column]):
        self._columns = {
            n: c for n, c in columns.items() if c.is_numeric and not c.shape and c.allowed is None and c.decimal != ","
        }

    def types(self, data: bytes) -> dict[str, pa.DataType]:
        """The type to parse each column as, in a block of text."""
        # Hexadecimal needs an x; that it is in some other column costs a little time, no more.
        hexadecimal = any(c.is_integer for c in self._columns.values()) and (b"x" in data or b"X" in data)
        # Floats of all dtypes are the nearest float64, rounded (docs/contract.md).
        return {
            name: pa.float64() if column.is_float else column.scalar_type
            for name, column in self._columns.items()
            if column.is_float or not hexadecimal
        }

    def give_up(self, name: str) -> None:
        """The column is read as text from now on."""
        del self._columns[name]

    def accept(self, name: str, values: pa.Array) -> pa.Array | None:
        """The parsed values in the column's dtype; None where one of them is not for this way."""
        column = self._columns[name]
        numbers = (values.drop_null() if values.null_count else values).to_numpy()
        if not len(numbers):
            return values.cast(column.scalar_type)
        if column.is_float:
            with np.errstate(over="ignore"):
                numbers = numbers.astype(column.dtype, copy=False)
        least, most = numbers.min(), numbers.max()
        if column.is_float and not (np.isfinite(least) and np.isfinite(most)):
            return None
        if column.range is not None:
            low, high = column.limits
            if not (low <= least and most <= high):
                return None
        return values.cast(column.scalar_type) if values.null_count else pa.array(numbers)


def failed_column(error: pa.ArrowInvalid) -> int | None:
    """The number of the field, from 0, that pyarrow failed to convert; None where it was something else."""
    found = _COLUMN.match(str(error))
    return int(found.group(1)) if found else None
