"""Definitions shared by all formats: settings, chunks of rows, and the error for an unusable file.

A format is a module `formats/FORMAT/reader.py` with three functions:

    check(path, settings, version=None) -> str | None
        Raise UnusableFile if a header or footer shows that the whole file cannot be used. Cheap: preflight calls it for
        every file. Return the text of the header, for the record, if the format has one.
    cut(path, size, split_bytes, settings, version=None) -> list[FileRange]
        Return the ranges that can be read independently of each other, each with the number of its first row.
    read(range, settings) -> Iterator[Chunk]
        Yield the rows of a range, in order, in bounded chunks; the same chunks at every call (see `read_range`).

A version is that of `transforms.stores.versions`; for an object, that version is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pyarrow as pa

from beam_score.transforms.common.bounds import DEFAULT_BOUNDS, Bounds
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import NO_REJECTED
from beam_score.transforms.rows.origin import Origin


class UnusableFile(Exception):
    """A file that cannot be used at all: it gets one dead letter, and the other files are read.

    Attributes:
      reason: a code of `transforms.rows.faults.REASONS`.
      message: what was found, what was expected, what to do; without the file's name.
      column: the column at fault, if any.
    """

    def __init__(self, reason: str, message: str, column: str | None = None):
        super().__init__(reason, message, column)
        self.reason, self.message, self.column = reason, message, column

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


@dataclasses.dataclass(frozen=True)
class ReadSettings:
    """The settings of a reader, apart from the range.

    Attributes:
      format: one of FORMATS; or `dead_letters`, for a replay.
      columns: the contract's columns.
      keep: names of further columns carried to the output; None for all of them. A kept column that the contract
        declares is an ordinary contract column. Other kept columns are text (CSV), JSON text (JSON Lines) or of their
        own type (Parquet).
      kept_types: of Parquet: the types of undeclared kept columns, in which all files must agree.
      payload: whether dead letters contain the record (`rejects.payload: full`).
      extra: `ignore` or `reject`: the treatment of columns that the contract does not name.
      delimiter, quote, escape, header, nulls: of CSV; an empty quote or escape disables it. `header` false: the fields
        are the contract's columns, then the kept ones, in order. `nulls` are unquoted texts read as null.
      strip: whether spaces and tabs around the text of kept columns are removed, before nulls are looked up; contract
        columns have their own setting.
      record_column: of TFRecord, and of rows fed to the model as they are: the name of a bytes column for the whole
        record; None for none.
      bare_value_column: of JSON Lines: the column whose value is a line that is not an object.
      max_block_bytes: approximate input bytes of a chunk.
      max_block_rows: maximum rows of a chunk.
      max_row_bytes: a longer record is `too_large`.
      replay: for a replay: whose dead letters are read, and how; the other settings are those of the files that the
        rows were first read from.
      bounds: limits on the memory of a worker thread.
    """

    format: str
    columns: Contract
    keep: tuple[str, ...] | None = ()
    kept_types: Mapping[str, pa.DataType] = dataclasses.field(default_factory=dict)
    payload: bool = True
    extra: str = "ignore"
    delimiter: str = ","
    quote: str = '"'
    escape: str = ""
    header: bool = True
    nulls: tuple[str, ...] = ()
    strip: bool = False
    record_column: str | None = None
    bare_value_column: str | None = None
    max_block_bytes: int = 4 << 20
    max_block_rows: int = 65536
    max_row_bytes: int = 16 << 20
    replay: Replay | None = None
    bounds: Bounds = DEFAULT_BOUNDS

    @property
    def contract_columns(self) -> dict[str, Column]:
        """The columns in the form that files of this format have."""
        if self.format == "csv":
            return dict(self.columns.columns)
        return {name: column.as_read for name, column in self.columns.columns.items()}

    @property
    def kept_undeclared(self) -> tuple[str, ...]:
        """Kept columns that the contract does not declare. Not for `keep: all`."""
        return tuple(name for name in self.keep or () if name not in self.columns.columns)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """The output of a reader: some consecutive records of one range.

    Attributes:
      rows: `ROW` (int64, ascending), then every contract column and every kept column by its name, optionally `FAULTS`.
        A contract column is either unparsed text (a string array under a numeric or bool column: CSV only) or has
        values that each represent exactly one value of the dtype; null if the value is missing, or if FAULTS describes
        what is wrong.
      rejected: records rejected as a whole (`REJECTED_SCHEMA`), payload included.
      origin: the bytes of these records; None if payloads are not kept.
      source: the file that they are from, if it is not that of the range.
    """

    rows: pa.RecordBatch
    rejected: pa.RecordBatch = dataclasses.field(default_factory=lambda: NO_REJECTED)
    origin: Origin | None = None
    source: str | None = None


def empty_rows(settings: ReadSettings) -> pa.RecordBatch:
    """Return no rows, with the contract's columns; for chunks that only contain dead letters."""
    columns = {ROW: pa.array([], pa.int64())}
    columns |= {name: pa.array([], c.arrow_type) for name, c in settings.contract_columns.items()}
    columns |= {name: pa.array([], settings.kept_types.get(name, pa.string())) for name in settings.kept_undeclared}
    if settings.record_column is not None:
        columns[settings.record_column] = pa.array([], pa.binary())
    return pa.RecordBatch.from_pydict(columns)


BY = ("auto", "payload", "source")
"""Where a row is read from: its dead letter, its file, or the better of the two."""


@dataclasses.dataclass(frozen=True)
class Replay:
    """The dead letters to read, and how.

    Attributes:
      output, run: the parent run, whose dead letters they are.
      format: of the files that the rows were first read from.
      by: one of `BY`.
      same_rows: whether rows are numbered as by the parent: false with another delimiter, quote or header.
    """

    output: str
    run: str
    format: str
    by: str = "auto"
    same_rows: bool = True
