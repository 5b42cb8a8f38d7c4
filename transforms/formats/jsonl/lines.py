"""Some lines of a block of bytes."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Lines:
    """Some lines of a block.

    Attributes:
      data: the block's bytes.
      starts, ends: int64 positions of each line in it.
    """

    data: bytes
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def line(self, index: int) -> bytes:
        return self.data[self.starts[index] : self.ends[index]]

    def pick(self, index: np.ndarray) -> Lines:
        """Return the lines at these ascending positions, moved together: `data` contains nothing else then."""
        if not len(index):
            return Lines(b"", self.starts[:0], self.ends[:0])
        # Copied run by run, so that a few skipped lines cost little. A line of only white space ends a run: it appears
        # as more than a line end and an empty line between two lines.
        apart = self.starts[index[1:]] - self.ends[index[:-1]] > 2
        borders = np.flatnonzero((np.diff(index) != 1) | apart) + 1
        first, last = index[np.append(0, borders)], index[np.append(borders, len(index)) - 1]
        view = memoryview(self.data)
        begins, stops = self.starts[first].tolist(), self.ends[last].tolist()
        data = b"\n".join([view[b:e] for b, e in zip(begins, stops, strict=True)])
        sizes = self.ends[last] - self.starts[first] + 1
        shift = np.repeat(
            np.cumsum(np.append(0, sizes[:-1])) - self.starts[first],
            np.diff(np.append(np.append(0, borders), len(index))),
        )
        return Lines(data, self.starts[index] + shift, self.ends[index] + shift)
