"""Settings of the JSON Lines format."""

from __future__ import annotations

import dataclasses

from beam_score.transforms.formats.base import NoOptions


@dataclasses.dataclass(frozen=True)
class JsonLinesOptions(NoOptions):
    """Settings of the JSON Lines format.

    Attributes:
      bare_value_column: the column whose value is a line that is not an object; None to reject such lines.
    """

    bare_value_column: str | None = None
