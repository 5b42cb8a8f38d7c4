"""The first rows of a file, for the draft of a contract: what is known before they are read, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FIRST_BYTES = 8 << 20
"""The most decompressed bytes that are read from one file."""


@dataclass(frozen=True)
class Hints:
    """Properties of files that are known before they are read; None for those to guess.

    Attributes:
      format: one of `FORMATS`.
      options: of the format, such as CsvOptions; with them nothing is guessed.
      delimiter, header: of CSV, if its other options are not known.
      names: column names of a file without a header, in order.
      expected: likely column names: the names of the model's inputs.
    """

    format: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    names: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()
    options: Any = None


UNKNOWN = Hints()


@dataclass(frozen=True)
class Guess:
    """A guess whether the first line is a header.

    Attributes:
      is_there: whether there is a header.
      is_sure: false if the user should be asked.
      why: the reason for the guess.
    """

    is_there: bool
    is_sure: bool
    why: str


@dataclass(frozen=True)
class Dialect:
    """How the values of a text are separated.

    Attributes:
      delimiter, escape: one character each; no escape is "".
      header: whether the first line is a header.
    """

    delimiter: str
    header: Guess
    escape: str = ""


@dataclass(frozen=True)
class FirstRows:
    """Some rows of a file.

    Attributes:
      rows: dicts by column; for a format whose records need not have named values, any value.
      names: of the columns, if the file has them apart from its rows.
      unreadable: number of further rows that could not be parsed.
      dialect: of a format that has several.
    """

    rows: list[Any]
    names: tuple[str, ...] = ()
    unreadable: int = 0
    dialect: Dialect | None = None
