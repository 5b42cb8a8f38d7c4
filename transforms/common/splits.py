"""Units of work: ranges of files, and splits of ranges."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beam_score.transforms.stores.compression import CorruptStream


@dataclasses.dataclass(frozen=True, slots=True)
class FileRange:
    """A part of one file that can be read independently.

    Attributes:
      path: the file.
      size: bytes of the whole file, as listed at launch.
      start, end: the bytes of the range, from the start of a record to the end of one. For Parquet
        the numbers of the first row group and of the one after the last. `end` -1: to the end.
      first_row: number of the range's first record in the file.
      index: 0 for the file's first range, which reports faults of the whole file.
      bytes: the input bytes that are read for it, for balancing.
      version: the version of the file (`transforms.stores.versions`); None for any, unchecked.
      sound: known damage found by a checksum in the file; not planned, but set when it is found.
    """

    path: str
    size: int
    start: int = 0
    end: int = -1
    first_row: int = 0
    index: int = 0
    bytes: int = 0
    version: str | None = None
    sound: CorruptStream | None = None


@dataclasses.dataclass(frozen=True)
class Split:
    """The unit of work, of retry and of receipts: an ordered list of file ranges."""

    id: int
    ranges: tuple[FileRange, ...]

    @property
    def bytes(self) -> int:
        return sum(r.bytes for r in self.ranges)
