"""Blocks without quotes: polars parses the numbers of clean and dirty lines in one pass.

polars returns null for a text that is not a number, so a bad value costs only its own row. It accepts no text that
docs/contract.md refuses, as long as a block has no quotes, and no line ends but LF and CRLF; other blocks are left to
pyarrow (`transforms.formats.csv.reader`), whose number parser fails a whole block for one bad value. Values that are
not plainly valid, for whatever reason, are returned as text, and `transforms.scoring.validate` judges it, as it judges
the columns that are text as a whole. So nothing depends on the way that was taken.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.transforms.arrays.plain import cut_out, nulls_of, scattered, values_of
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.contract.numbers import BLANKS
from beam_score.transforms.formats.csv.options import CsvOptions
from beam_score.transforms.framing.lines import BOM, CR, LF
from beam_score.transforms.rows.block import TEXT

_LEAST_BYTES = 1 << 12
"""A smaller block is read faster by pyarrow: a call of polars costs 0.2 ms more."""

_MOST_ODD = 0.25
"""Share of a column's values; a column with more is read as text from then on."""


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of the file that the job uses.

    Attributes:
      index: its number in a record.
      column: the rules for its values; None for a kept column that the contract does not declare, which is text.
      nulls: unquoted texts that are missing values, apart from the empty one.
      strip: whether blanks around a text are removed before it is compared with `nulls`.
    """

    index: int
    column: Column | None
    nulls: tuple[str, ...]
    strip: bool

    @property
    def is_number(self) -> bool:
        return self.column is not None and self.column.is_numeric and self.column.decimal != ","

    @property
    def is_plain(self) -> bool:
        """True if the text of a field, as polars returns it, is its value."""
        return self.is_number or not (self.nulls or self.strip)


@dataclasses.dataclass(frozen=True)
class Parsed:
    """The records of a block.

    Attributes:
      columns: by name, of the records that are not ragged; `TEXT` columns contain the values left as text.
      rows: number of these records.
      ragged: int64 positions of the ragged records among all, and the numbers of their fields.
      spans: positions of all records, as `transforms.framing.csv.Spans`; None if no record needed them.
    """

    columns: dict[str, pa.Array]
    rows: int
    ragged: tuple[np.ndarray, np.ndarray]
    spans: tuple[np.ndarray, np.ndarray] | None = None


NO_RECORDS = Parsed({}, 0, (np.array([], np.int64), np.array([], np.int64)))


class PlainBlocks:
    """Parses the blocks of one file that have no quotes.

    Args:
      fields: the used ones, by name.
      count: number of fields of a record.
    """

    def __init__(self, fields: dict[str, Field], count: int, options: CsvOptions):
        self._fields, self._count, self._options = fields, count, options
        self._types = {
            str(f.index): (pl.Float64 if f.column.is_float else _INTEGERS[f.column.dtype])
            for f in fields.values()
            if f.column is not None and f.is_number
        }
        if not all(field.is_plain for field in fields.values()):
            self._types.clear()

    def may_parse(self, data: bytes) -> bool:
        """Return whether a block looks plain, and has numbers to parse; `parse` looks more closely."""
        quote = self._options.quote.encode()
        is_small = len(data) < _LEAST_BYTES
        return bool(self._types) and not is_small and not data.startswith(BOM) and not (quote and quote in data)

    def parse(self, data: bytes) -> Parsed | None:
        """Return the records of a block that `may_parse`; None if it is not plain."""
        if not data.endswith(b"\n"):
            data += b"\n"
        text = np.frombuffer(data, np.uint8)
        has_cr = b"\r" in data
        if has_cr and (text[np.flatnonzero(text == CR) + 1] != LF).any():
            return None
        line_ends = text == LF
        frame = self._read(data)
        if frame is None or frame.height != np.count_nonzero(line_ends):
            return None
        columns, odd = self._columns(frame)
        delimiters = np.count_nonzero(text == ord(self._options.delimiter))
        at = np.flatnonzero(np.logical_or.reduce([*odd.values(), *self._may_be_ragged(frame)]))
        regular = (frame.height - len(at)) * (self._count - 1)
        if not len(at) and delimiters == regular:
            return Parsed({n: _array(c) for n, c in columns.items()}, frame.height, NO_RECORDS.ragged)
        ends = np.flatnonzero(line_ends)
        starts = np.append(0, ends[:-1] + 1)
        if has_cr:
            ends = ends - ((text[ends - 1] == CR) & (ends > starts))
        lines = _Lines(data, starts[at], ends[at], self._options.delimiter)
        if delimiters - lines.delimiters != regular:
            at = np.arange(frame.height)  # a line has a field too many, which is empty
            lines = _Lines(data, starts, ends, self._options.delimiter)
        return self._judged(columns, odd, at, lines, (starts, ends))

    def _read(self, data: bytes) -> pl.DataFrame | None:
        """Return the used fields, the last one, and the one after it."""
        used = {f.index for f in self._fields.values()} | {self._count - 1, self._count}
        try:
            return pl.read_csv(
                data,
                has_header=False,
                schema={str(i): self._types.get(str(i), pl.String) for i in range(self._count + 1)},
                columns=sorted(used),
                separator=self._options.delimiter,
                quote_char=None,
                ignore_errors=True,
                extra_columns="ignore",
                missing_columns="insert",
            )
        except pl.exceptions.ComputeError:  # a text that is not UTF-8
            return None

    def _columns(self, frame: pl.DataFrame) -> tuple[dict[str, np.ndarray | pa.Array], dict[str, np.ndarray]]:
        """Return the values of the used fields; and by name of a number column, which values are not plainly valid."""
        columns: dict[str, np.ndarray | pa.Array] = {}
        odd: dict[str, np.ndarray] = {}
        for name, field in self._fields.items():
            values, column = frame[str(field.index)], field.column
            if str(field.index) not in self._types:
                type_ = pa.binary() if column is not None and column.dtype == "bytes" else pa.string()
                columns[name] = values.to_arrow().cast(type_)
                continue
            assert column is not None
            null: np.ndarray | None = None
            if column.is_integer and values.null_count():
                array = values.to_arrow()
                null, numbers = nulls_of(array), values_of(array)
            else:
                numbers = values.to_numpy()  # of floats, nulls are NaN
            if column.is_float:
                with np.errstate(over="ignore"):
                    numbers = numbers.astype(column.dtype, copy=False)
            columns[name] = numbers
            outside = _outside(column, numbers)
            masks = [mask for mask in (null, outside) if mask is not None]
            if masks:
                odd[name] = np.logical_or.reduce(masks)
        return columns, odd

    def _may_be_ragged(self, frame: pl.DataFrame) -> list[np.ndarray]:
        """Return masks of the lines with no last field, or with a further one that is not empty."""
        last, more = frame[str(self._count - 1)], frame[str(self._count)]
        masks = [nulls_of(last.to_arrow())] if last.null_count() else []
        if more.null_count() < frame.height:
            masks.append(~nulls_of(more.to_arrow()))
        return masks or [np.zeros(frame.height, bool)]

    def _judged(
        self,
        columns: dict[str, np.ndarray | pa.Array],
        odd: dict[str, np.ndarray],
        at: np.ndarray,
        lines: _Lines,
        spans: tuple[np.ndarray, np.ndarray],
    ) -> Parsed:
        """Return the records of a block, with the values that are not plainly valid as text.

        Args:
          at: positions of the lines with such values, or that may be ragged.
          lines: these lines.
          spans: positions of all lines.
        """
        blank, fits = lines.blank, (lines.fields == self._count) & ~lines.blank
        removed = at[~fits]
        kept = np.ones(len(spans[0]), bool)
        kept[removed] = False
        arrays: dict[str, pa.Array] = {}
        for name, values in columns.items():
            if len(removed):
                values = values[kept] if isinstance(values, np.ndarray) else values.filter(pa.array(kept))
            if name not in odd or not len(mine := np.flatnonzero(odd[name][at] & fits)):
                arrays[name] = _array(values)
                continue
            texts, missing = self._texts(self._fields[name], lines, mine)
            position = at[mine] - np.searchsorted(removed, at[mine])
            arrays[name] = _array(values, position[missing])
            if len(texts):
                arrays[TEXT + name] = scattered(texts, position[~missing], len(values))
            if len(texts) > _MOST_ODD * len(values):
                del self._types[str(self._fields[name].index)]
        if blank.any():
            gone = at[blank]
            spans = np.delete(spans[0], gone), np.delete(spans[1], gone)
            at = at - np.searchsorted(gone, at)
        ragged = ~fits & ~blank
        return Parsed(arrays, len(kept) - len(removed), (at[ragged], lines.fields[ragged]), spans)

    def _texts(self, field: Field, lines: _Lines, index: np.ndarray) -> tuple[pa.Array, np.ndarray]:
        """Return the texts of a field of some records, without those of missing values; and which are missing."""
        texts = lines.texts(field.index, index)
        missing = np.equal(pc.binary_length(texts).to_numpy(), 0)
        if field.nulls:
            looked_up = pc.utf8_trim(texts, BLANKS) if field.strip else texts
            missing |= pc.is_in(looked_up, pa.array(field.nulls)).to_numpy(zero_copy_only=False)
        return texts.filter(pa.array(~missing)) if missing.any() else texts, missing


_INTEGERS = {
    f"{sign}int{bits}": getattr(pl, f"{'U' if sign else ''}Int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
}


class _Lines:
    """Some lines of a block.

    Attributes:
      delimiters: their number.
      fields: the number of fields of each.
      blank: which are empty.
    """

    def __init__(self, data: bytes, starts: np.ndarray, ends: np.ndarray, delimiter: str):
        raw = cut_out(pa.py_buffer(data), starts, ends)
        _, offsets, content = raw.buffers()
        self._content = content
        self._edges = np.frombuffer(offsets, np.int32, len(raw) + 1)
        marks = np.flatnonzero(np.frombuffer(content, np.uint8, self._edges[-1]) == ord(delimiter))
        self._first = np.searchsorted(marks, self._edges)  # of each line, its first delimiter
        self._marks = np.append(marks, self._edges[-1])
        self.delimiters, self.fields = len(marks), np.diff(self._first) + 1
        self.blank = starts == ends

    def texts(self, field: int, lines: np.ndarray) -> pa.Array:
        """Return a field of some of the lines, which have it."""
        mark = self._first[lines] + field
        starts = self._marks[mark - 1] + 1 if field else self._edges[lines]
        ends = np.minimum(self._marks[mark], self._edges[lines + 1])
        raw = cut_out(self._content, starts, ends)
        try:
            return raw.cast(pa.string())
        except pa.ArrowInvalid:
            return pa.array([value.decode("utf-8", "replace") for value in raw.to_pylist()], pa.string())


def _outside(column: Column, numbers: np.ndarray) -> np.ndarray | None:
    """Return which numbers are not finite, or not allowed by the contract; None if all are."""
    if not len(numbers):
        return None
    odd = None
    least, most = numbers.min(), numbers.max()
    if column.is_float and not (np.isfinite(least) and np.isfinite(most)):
        odd = ~np.isfinite(numbers)
    if column.range is not None:
        low, high = column.limits
        if not (low <= least and most <= high):
            outside = (numbers < low) | (numbers > high)
            odd = outside if odd is None else odd | outside
    if column.allowed is not None:
        outside = ~np.isin(numbers, np.array(column.allowed, numbers.dtype))
        odd = outside if odd is None else odd | outside
    return odd


def _array(values: np.ndarray | pa.Array, missing: np.ndarray | None = None) -> pa.Array:
    """Return values as an Arrow array, null at some positions."""
    if not isinstance(values, np.ndarray):
        return values
    if missing is None or not len(missing):
        return pa.array(values)
    mask = np.zeros(len(values), bool)
    mask[missing] = True
    return pa.array(values, mask=mask, from_pandas=False)
