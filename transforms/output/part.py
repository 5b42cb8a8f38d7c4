"""The record of a part file."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A file of predictions or dead letters.

    Attributes:
      name: under the run's `parts` folder.
      kind: `predictions` or `rejected`.
      rows: lines or rows in it.
      bytes: its size.
      crc32c: of its content, in hexadecimal.
    """

    name: str
    kind: str
    rows: int
    bytes: int
    crc32c: str
