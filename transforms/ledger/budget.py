"""The budget of a run for rejected rows, and the check against it."""

from __future__ import annotations

import dataclasses
from numbers import Integral, Real

from beam_score.transforms.common.units import counted
from beam_score.transforms.ledger.receipt import Counts


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits on rejected rows, files and stretches. Not part of the job's identity: it can be raised later.

    Attributes:
      rows: rejected rows allowed, or None if `share` sets the limit.
      share: rejected rows allowed as a share of the rows read.
      files: unusable files and unreadable stretches allowed.
    """

    rows: int | None = None
    share: float | None = 0.01
    files: int = 0

    def __post_init__(self) -> None:
        for name, limit in (("rows", self.rows), ("files", self.files)):
            if limit is not None and (not isinstance(limit, Integral) or limit < 0):
                raise ValueError(f"Budget: {name} is {limit!r}, expected a whole number of at least 0")
        if self.rows is None and (not isinstance(self.share, Real) or not 0 <= self.share <= 1):
            raise ValueError(f"Budget: share is {self.share!r}, expected a number from 0 to 1, for example 0.01 for 1%")

    def broken(self, counts: Counts) -> list[str]:
        """Return a sentence for each limit that is exceeded."""
        problems = []
        if self.rows is not None and counts.rejected > self.rows:
            are = "is" if counts.rejected == 1 else "are"
            problems.append(
                f"{counted(counts.rejected, 'row')} {are} rejected, and rejects.budget allows {self.rows:,}"
            )
        if self.rows is None and counts.read and counts.rejected > (self.share or 0) * counts.read:
            share = counts.rejected / counts.read
            problems.append(
                f"{counts.rejected:,} of {counted(counts.read, 'row')} are rejected ({share:.2%}), "
                f"and rejects.budget allows {self.share:g} of them ({self.share:.2%})"
            )
        if counts.stretches > self.files:
            problems.append(
                f"{counted(counts.stretches, 'file or stretch', 'files or stretches')} cannot be read, and "
                f"rejects.files allows {self.files}"
            )
        return problems
