"""Settings of a replay: the dead letters to read, and how."""

from __future__ import annotations

import dataclasses
from typing import Any

from beam_score.transforms.formats.base import NoOptions, format_named

REPLAY_SOURCES = ("auto", "payload", "source")
"""Where a row is read from: its dead letter, its file, or the better of the two."""


@dataclasses.dataclass(frozen=True)
class Replay(NoOptions):
    """The dead letters to read, and how.

    Attributes:
      output, run: the parent run, whose dead letters they are.
      format, options: of the files that the rows were first read from; as in `ReadSettings`.
      by: one of `REPLAY_SOURCES`.
      same_rows: whether rows are numbered as by the parent: false with another delimiter, quote or header.
    """

    output: str
    run: str
    format: str
    options: Any = None
    by: str = "auto"
    same_rows: bool = True

    @property
    def prefers_source(self) -> bool:
        """True if a row is read from its file rather than from its payload, which does not have the exact types."""
        return format_named(self.format).payload_kind == "json"
