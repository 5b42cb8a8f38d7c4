"""Source files of the rows of a block: one file, or several small files, one after the other."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Files:
    """Whole files whose rows are all in one block, one file after the other. The rows of the block are numbered
    consecutively across the files, from 0.

    Attributes:
      paths: of the files.
      rows: number of records of each file.
    """

    paths: tuple[str, ...]
    rows: tuple[int, ...]

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *self.rows[:-1]])

    def of(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the files, by their index in `paths`, and the row numbers in them, of rows of the block."""
        at = np.searchsorted(self._starts, numbers, side="right") - 1
        return at, numbers - self._starts[at]


Source = str | Files
"""Source of the rows of a block."""


def places(source: Source, numbers: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """Return the file, and the row number in it, of each of some rows of a block.

    Args:
      numbers: int64 row numbers in the block.
    """
    if isinstance(source, str):
        return pa.repeat(pa.scalar(source, pa.string()), len(numbers)), numbers
    at, own = source.of(numbers)
    return pa.array(source.paths, pa.string()).take(pa.array(at)), own


def place(source: Source, number: int) -> tuple[str, int]:
    """Return the file, and the row number in it, of one row of a block."""
    if isinstance(source, str):
        return source, number
    at, own = source.of(np.array([number]))
    return source.paths[int(at[0])], int(own[0])
