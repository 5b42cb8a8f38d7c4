"""Settings of the TFRecord format."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pyarrow as pa

from beam_score.transforms.formats.base import NoOptions


@dataclasses.dataclass(frozen=True)
class TfRecordOptions(NoOptions):
    """Settings of the TFRecord format.

    Attributes:
      record_column: the name of a column of bytes for the whole record; None for none.
    """

    record_column: str | None = None

    @property
    def added_columns(self) -> Mapping[str, pa.DataType]:
        return {} if self.record_column is None else {self.record_column: pa.binary()}
