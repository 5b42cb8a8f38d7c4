"""Which file each row of a block is from: one for all of them, or several small ones, one after the other."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Files:
    """Whole files, all rows of which are in one block, one file after the other. The row numbers of such a block
    count on through all of them, from 0.

    Attributes:
      paths: of the files.
      rows: how many records each holds.
    """

    paths: tuple[str, ...]
    rows: tuple[int, ...]

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *self.rows[:-1]])

    def of(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The files, by their place in `paths`, and the row numbers there, of rows of the block."""
        at = np.searchsorted(self._starts, numbers, side="right") - 1
        return at, numbers - self._starts[at]


Source = str | Files
"""Where the rows of a block are from."""


def places(source: Source, numbers: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """The file, and the row number in it, of each of some rows of a block.

    Args:
      numbers: int64, as the block numbers them.
    """
    if isinstance(source, str):
        return pa.repeat(pa.scalar(source, pa.string()), len(numbers)), numbers
    at, own = source.of(numbers)
    return pa.array(source.paths, pa.string()).take(pa.array(at)), own


def place(source: Source, number: int) -> tuple[str, int]:
    """The file, and the row number in it, of one row of a block."""
    files, own = places(source, np.array([number]))
    return files[0].as_py(), int(own[0])
