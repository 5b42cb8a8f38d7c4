"""The interface of a format, and the definitions that all formats share.

To add a format: a folder `formats/NAME/` with a module `reader.py` that defines `FORMAT`, a subclass of `Format`, and a
line in `registry.py`. `tests/test_formats_keep_their_word.py` tests the promises of every format.
"""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from beam_score.transforms.common.bounds import DEFAULT_BOUNDS, Bounds
from beam_score.transforms.common.names import near_miss
from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.first_rows import FirstRows, Hints
from beam_score.transforms.formats.registry import FORMATS, READERS, load
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


class Options(Protocol):
    """Settings of one format, a frozen, hashable class. Every such class has these properties, which other code uses.

    Attributes:
      header: whether a file begins with a text without which its records cannot be understood.
      quote: the character inside a pair of which a record may contain line ends; empty for none.
      added_columns: columns that the reader adds to those of the contract and to the kept ones.
    """

    @property
    def header(self) -> bool: ...

    @property
    def quote(self) -> str: ...

    @property
    def added_columns(self) -> Mapping[str, pa.DataType]: ...


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """The options of a format without settings, and the base class for formats that are not text."""

    @property
    def header(self) -> bool:
        return False

    @property
    def quote(self) -> str:
        return ""

    @property
    def added_columns(self) -> Mapping[str, pa.DataType]:
        return {}


@dataclasses.dataclass(frozen=True)
class ReadSettings:
    """The settings of a reader, apart from the range.

    Attributes:
      format: one of `FORMATS`; or `dead_letters`, for a replay.
      columns: the contract's columns.
      keep: names of further columns carried to the output; None for all of them. A kept column that the contract
        declares is an ordinary contract column. Other kept columns are text (CSV, TFRecord), JSON text (JSON Lines) or
        of their own type (Parquet, Avro, ORC).
      kept_types: the types of undeclared kept columns, in which all files must agree; text if absent.
      payload: whether dead letters contain the record (`rejects.payload: full`).
      from_files: whether the rows are from files, which messages may speak of; those of a request are not.
      extra: `ignore` or `reject`: the treatment of columns that the contract does not name.
      strip: whether spaces and tabs around the text of kept columns are removed, before nulls are looked up; contract
        columns have their own setting.
      options: the settings of this format, such as `CsvOptions`; None for the defaults.
      max_block_bytes: approximate input bytes of a chunk.
      max_block_rows: maximum rows of a chunk.
      max_row_bytes: a longer record is `too_large`.
      bounds: limits on the memory of a worker thread.

    Raises:
      ValueError: the format is not known, or cannot satisfy the settings.
      TypeError: `columns` is not a Contract, or the options are those of another format.
    """

    format: str
    columns: Contract
    keep: tuple[str, ...] | None = ()
    kept_types: Mapping[str, pa.DataType] = dataclasses.field(default_factory=dict)
    payload: bool = True
    from_files: bool = True
    extra: str = "ignore"
    strip: bool = False
    options: Any = None  # Options, after `__post_init__`
    max_block_bytes: int = 8 << 20
    max_block_rows: int = 65536
    max_row_bytes: int = 16 << 20
    bounds: Bounds = DEFAULT_BOUNDS

    def __post_init__(self) -> None:
        if self.format not in READERS:
            raise ValueError(
                f"format {self.format!r} is not known: expected {', '.join(FORMATS)}{near_miss(self.format, FORMATS)}"
            )
        if not isinstance(self.columns, Contract):
            raise TypeError(
                f"columns is a {type(self.columns).__name__}, expected a Contract: Contract(columns={{...}})"
            )
        if isinstance(self.keep, str):
            raise TypeError(f"keep is {self.keep!r}, expected a tuple of names, or None for all columns")
        if self.extra not in ("ignore", "reject"):
            raise ValueError(f"extra is {self.extra!r}, expected 'ignore' or 'reject'")
        own = format_named(self.format)
        wanted = own.options_type
        options = wanted() if self.options is None else self.options
        if type(options) is not wanted:
            raise TypeError(f"options are {type(options).__name__}, expected {wanted.__name__} for {self.format}")
        object.__setattr__(self, "options", options)
        if problems := own.setting_problems(self.columns, self.keep, options):
            raise ValueError("; ".join(problems))

    @property
    def contract_columns(self) -> dict[str, Column]:
        """The columns in the form that files of this format have."""
        if format_named(self.format).values == "text":
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
    columns |= {name: pa.array([], type_) for name, type_ in settings.options.added_columns.items()}
    return pa.RecordBatch.from_pydict(columns)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The requirements of a job on the format of its input, apart from the columns.

    Attributes:
      sections: the settings under `input.NAME` of a job file, by the name of their format.
      record_column: the column for the whole record, if a model input takes it.
      value_column: the only column of the contract that is fed to the model: the value of a record without names.
    """

    sections: Mapping[str, Options]
    record_column: str | None = None
    value_column: str | None = None


class Format(abc.ABC):
    """How files of one format are recognised, checked, cut and read.

    A version, wherever one is passed, is that of `transforms.stores.versions`; of an object, that version is read.

    Attributes:
      name: in `input.format`.
      title: in messages.
      suffixes: of file names, in lower case, without those of compression.
      magic: the beginning of every file; None if the first bytes do not identify the format.
      values: what a record stores: `text` (CSV: each value is a text), `flat` (tf.Example: values and flat lists of
        them) or `nested` (typed values, lists in lists).
      payload_kind: the payload of a dead letter: the record's own `text`, its own bytes (`binary`; such a record can
        also feed a model as it is), or its columns as `json`.
      options_type: the class of its options.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    magic: re.Pattern[bytes] | None = None
    values: Literal["text", "flat", "nested"] = "nested"
    payload_kind: Literal["text", "binary", "json"] = "json"
    options_type: type[Options] = NoOptions

    def options(self, wanted: Wanted) -> Options:
        """Return the options of this format for a job."""
        return NoOptions()

    def setting_problems(self, columns: Contract, keep: tuple[str, ...] | None, options: Options) -> list[str]:
        """Return what this format cannot satisfy of some settings, a sentence each, by their names in a job file."""
        return []

    @abc.abstractmethod
    def check(self, path: str, settings: ReadSettings, version: str | None = None) -> str | None:
        """Check, by its first or last bytes, whether a file can be used: preflight calls this for every file.

        Returns:
          the text of the header, for the record, if the format has one.

        Raises:
          UnusableFile: no row of the file can be used.
          OSError: the file cannot be read.
        """

    def header_of(self, path: str, settings: ReadSettings, version: str | None = None) -> str | None:
        """Return the text of a file's header; None for a format or a file without one. Raises as `check`."""
        return None

    def columns_of(
        self, path: str, settings: ReadSettings, version: str | None = None
    ) -> Mapping[str, pa.DataType] | None:
        """Return the columns of a file with the types that they are kept with; None if the file does not name them.
        Raises as `check`."""
        return None

    @abc.abstractmethod
    def cut(
        self, path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None
    ) -> list[FileRange]:
        """Return ranges of about `split_bytes` that can be read independently of each other, in order, each with the
        number of its first row. Raises OSError."""

    @abc.abstractmethod
    def read(self, range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
        """Yield the rows of a range, in order, in bounded chunks; the same chunks at every call.

        Raises:
          UnusableFile: before the first chunk.
          OSError: anywhere.
        """

    def first_rows(self, path: str, count: int, hints: Hints) -> FirstRows:
        """Return the first rows of a file as Python values, for a draft of a contract. Raises as `read`. Only for the
        formats of input files."""
        raise NotImplementedError

    def record_spans(self, data: bytes, settings: ReadSettings) -> tuple[np.ndarray, np.ndarray]:
        """Return where the records of a text start and end. Only for payloads that are `text`."""
        raise NotImplementedError

    def file_of(self, records: Sequence[bytes], header: str | None) -> bytes:
        """Return the content of a file with these records. Only for payloads that are not `json`."""
        raise NotImplementedError


def format_named(name: str) -> Format:
    """Return a format by its name."""
    return load(name)


def formats() -> Collection[Format]:
    """Return the formats of input files."""
    return [format_named(name) for name in FORMATS]
