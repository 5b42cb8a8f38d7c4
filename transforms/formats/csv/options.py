"""Settings of the CSV format, as in `input.csv` of a job file."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pydantic

from beam_score.transforms.common.settings import Strict


class CsvOptions(Strict):
    """Settings of the CSV format.

    Attributes:
      delimiter: one character.
      quote, escape: one character each; empty disables it.
      header: whether the first record names the columns; otherwise the fields are the contract's columns, then the kept
        ones, in order.
      nulls: unquoted texts read as null.
    """

    delimiter: str = pydantic.Field(default=",", min_length=1, max_length=1)
    quote: str = pydantic.Field(default='"', max_length=1)
    escape: str = pydantic.Field(default="", max_length=1)
    header: bool = True
    nulls: tuple[str, ...] = ()

    @property
    def added_columns(self) -> Mapping[str, pa.DataType]:
        return {}

    @property
    def dialect(self) -> tuple[str, str, str]:
        """Delimiter, quote and escape, as `transforms.framing.csv` takes them."""
        return self.delimiter, self.quote, self.escape

    @pydantic.model_validator(mode="after")
    def _characters(self) -> CsvOptions:
        for name, value in (("delimiter", self.delimiter), ("quote", self.quote), ("escape", self.escape)):
            if value and (not value.isascii() or value in "\r\n"):
                raise ValueError(f"found {name} {value!r}, expected one ASCII character that is not a line end")
        if self.delimiter == self.quote:
            raise ValueError("delimiter and quote are the same character")
        if self.escape and self.escape == self.quote:
            raise ValueError(
                "escape and quote are the same character: remove escape, doubled quotes are read without it"
            )
        if self.escape and self.escape == self.delimiter:
            raise ValueError("delimiter and escape are the same character")
        if self.escape and not self.quote:
            raise ValueError("escape has an effect only inside quotes, and quote is empty: remove one of them")
        return self
