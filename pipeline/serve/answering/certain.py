"""JSON rows that are certainly valid, as numpy arrays. Most rows are; Arrow would take longer for them than the model.

Only rows that `transforms.formats.jsonl` and `transforms.scoring.validate` accept are accepted here, with the same
values. They judge all other rows; `tests/test_certain_rows_are_those_of_a_file.py` compares both.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from beam_score.transforms.arrays.nested import fixed
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.formats.base import ReadSettings

_MINUS_ZERO = re.compile(rb"-0(?![.0-9eE])")
"""orjson reads it as the integer 0, and a file as -0.0."""

_KINDS: Mapping[str, frozenset[type]] = {
    "float": frozenset((float, int)),
    "int": frozenset((int,)),
    "uint": frozenset((int,)),
    "bool": frozenset((bool,)),
    "string": frozenset((str,)),
}
"""dtype, without its bits, to the types of its values in a parsed row."""

OTHER = 1 << 62
"""A fault of a row that only the functions of a run know; see `CertainRows.columns_of`."""


class CertainRows:
    """Reads and validates rows.

    Args:
      settings: the contract; see `is_able`.
    """

    def __init__(self, settings: ReadSettings):
        self._columns = settings.contract_columns
        self._names = frozenset(self._columns) if settings.extra == "reject" else None
        self._texts = [name for name, column in self._columns.items() if column.dtype == "string"]
        self._lists = sum(bool(column.shape) for column in self._columns.values())
        self._most_bytes = settings.max_row_bytes
        self._tensors = _bounds(self._columns)
        names = list(self._columns)
        self._pick = operator.itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)
        self._table = _Table.of(list(self._columns.values()))

    @staticmethod
    def is_able(settings: ReadSettings) -> bool:
        """Return whether all columns are of kinds that it knows: numbers, booleans and strings, and lists of a fixed
        number of them, without rules on how they are written."""
        return not settings.kept_undeclared and all(
            column.dtype != "bytes"
            and len(column.shape) < 2
            and None not in column.shape
            and not (column.nulls or column.strip or column.from_ or column.nan)
            for column in settings.columns.columns.values()
        )

    def rows_of(self, body: bytes, signature: str, default: str) -> list[dict[str, Any]] | None:
        """Return the rows of a request; None if they, or the body, need another look.

        Args:
          signature: that must be meant.
          default: the signature that is meant if the request names none.
        """
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if type(found) is not dict or type(rows := found.get("instances")) is not list:
            return None
        if len(found) != 1 + ("signature_name" in found) or found.get("signature_name", default) != signature:
            return None
        if len(body) > self._most_bytes or set(map(type, rows)) != {dict}:
            return None
        if self._names is not None and not all(map(self._names.issuperset, rows)):
            return None
        # A key that comes twice, which orjson would not report, has a colon of its own; so has each key of an object
        # inside of a row. A list inside of a row that is not a column may be nested deeper than a file's may.
        if not self._has(body, b":", len(found) + sum(map(len, rows)), rows):
            return None
        if not self._has(body, b"[", 1 + self._lists * len(rows), rows):
            return None
        if b"-0" in body and _MINUS_ZERO.search(body):
            return None
        return rows

    def _has(self, body: bytes, mark: bytes, times: int, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether a mark occurs so many times outside of strings. False if that is not certain."""
        extra = body.count(mark) - times
        if not extra or not self._texts or b"\\" in body:
            return not extra
        texts = (text for name in self._texts for row in rows if type(text := row.get(name)) is str)
        return sum(text.count(mark.decode()) for text in texts) == extra

    def columns_of(self, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return the columns of some rows, [rows, ...] each, bytes objects for strings; and the faults of each row:
        int64, 0 for none.

        Bit n: the value of column n is a number outside of the column's range. Rows with the same of these bits, and
        not OTHER, have the same verdict but for what they contain. OTHER: the row needs another look; its values are
        arbitrary.
        """
        values: Iterable[Sequence[Any]]
        try:
            picked = list(map(self._pick, rows))
        except KeyError:
            values = ([row.get(name) for row in rows] for name in self._columns)
        else:
            if self._table is not None and (found := self._table.read(picked)) is not None:
                table, faults = found
                return dict(zip(self._columns, table.T, strict=True)), faults
            values = zip(*picked, strict=True)
        bad, faults, columns = np.zeros(len(rows), bool), np.zeros(len(rows), np.int64), {}
        for number, ((name, column), own) in enumerate(zip(self._columns.items(), values, strict=True)):
            outside = np.zeros(len(rows), bool)
            columns[name] = _column(column, own, bad, outside)
            faults |= outside * (_bit(number))
        return columns, faults | bad * OTHER

    def are_good(self, feeds: Mapping[str, np.ndarray], most_rows: int) -> bool:
        """Return whether tensors are all columns of the contract, in its dtypes and shapes, and all their rows good
        numbers.

        Args:
          most_rows: of a request.
        """
        if self._tensors is None or feeds.keys() != self._tensors.keys():
            return False
        if len({feed.shape[:1] for feed in feeds.values()}) != 1:
            return False
        for name, (dtype, shape, low, high) in self._tensors.items():
            feed = feeds[name]
            if feed.dtype != dtype or feed.shape[1:] != shape or not 0 < len(feed) <= most_rows:
                return False
            if not (low <= np.minimum.reduce(feed, None) and np.maximum.reduce(feed, None) <= high):  # or NaN
                return False
        return True


def _bounds(columns: Mapping[str, Column]) -> dict[str, tuple[np.dtype, tuple[int | None, ...], Any, Any]] | None:
    """Return dtype, row shape, smallest and largest finite value of each column; None if a column has other rules."""
    made = {}
    for name, column in columns.items():
        if not column.is_numeric or column.allowed is not None:
            return None
        low, high = column.limits
        if column.is_float:
            most = np.finfo(column.dtype).max
            low, high = max(low, -most), min(high, most)
        made[name] = np.dtype(column.dtype), column.shape, low, high
    return made


@dataclasses.dataclass(frozen=True)
class _Table:
    """Columns of single floats, all of one dtype: read at once.

    Attributes:
      dtype: of the columns.
      low, high: their ranges, [columns].
      bits: of a value outside of them, [columns]; see `CertainRows.columns_of`.
    """

    dtype: np.dtype
    low: np.ndarray
    high: np.ndarray
    bits: np.ndarray

    @classmethod
    def of(cls, columns: Sequence[Column]) -> _Table | None:
        """Return some columns as a table; None if they are not one."""
        if len({column.dtype for column in columns}) != 1 or any(c.shape or not c.is_float for c in columns):
            return None
        dtype = np.dtype(columns[0].dtype)
        with np.errstate(over="ignore"):
            low, high = (np.array(limits, dtype) for limits in zip(*(c.limits for c in columns), strict=True))
        return cls(dtype, low, high, np.array([_bit(number) for number in range(len(columns))]))

    def read(self, rows: Sequence[tuple[Any, ...]]) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the values, [rows, columns], and the faults of each row; None if not all values are numbers."""
        flat = list(itertools.chain.from_iterable(rows))
        if not _KINDS["float"].issuperset(map(type, flat)):
            return None
        with np.errstate(over="ignore"):
            table = np.array(flat, np.float64).astype(self.dtype, copy=False).reshape(len(rows), -1)
        inside, finite = (table >= self.low) & (table <= self.high), np.isfinite(table)
        faults = np.zeros(len(rows), np.int64)
        if not (inside.all() and finite.all()):
            faults = np.bitwise_or.reduce(np.where(inside, 0, self.bits), 1) | np.where(finite.all(axis=1), 0, OTHER)
        return table, faults


def _bit(number: int) -> int:
    """Return the bit of a column for a value outside of its range."""
    return 1 << number if number < 62 else OTHER


def row_texts(body: bytes, rows: int) -> list[bytes] | None:
    """Return the text of each row of a body that `CertainRows.rows_of` accepts, on one line each; None if strings have
    braces.

    Args:
      rows: their number.
    """
    if body.count(b"{") != rows + 1 or body.count(b"}") != rows + 1:
        return None
    pieces = body.replace(b"\n", b" ").split(b"}")[:rows]  # a string has no line break
    return [piece[piece.rindex(b"{") :] + b"}" for piece in pieces]


def _column(column: Column, values: Sequence[Any], bad: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return the values of a column as an array; sets `bad` for rows that need another look, and `outside` for those
    with a single number outside of the column's range."""
    if column.default is not None and None in values:
        values = [column.default if value is None else value for value in values]
    if not column.shape:
        array = _scalars(column, values, bad, outside)
    else:
        (size,) = fixed(column.shape)
        if {list} != set(map(type, values)) or {size} != set(map(len, values)):
            filler = [_filler(column)] * size
            values = _replaced(values, lambda v: isinstance(v, list | tuple) and len(v) == size, filler, bad)
        wrong = np.zeros(len(values) * size, bool)
        array = _scalars(column, list(itertools.chain.from_iterable(values)), wrong, wrong).reshape(len(values), size)
        bad |= wrong.reshape(array.shape).any(axis=1)
    return array


def _scalars(column: Column, values: Sequence[Any], bad: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return single values as an array; see `_column`."""
    kinds = _KINDS[column.dtype.rstrip("0123456789")]
    if not kinds.issuperset(map(type, values)):
        values = _replaced(values, lambda value: type(value) in kinds, _filler(column), bad)
    if column.is_float:
        with np.errstate(over="ignore"):
            numbers = np.array(values, np.float64).astype(column.dtype, copy=False)
        if not _inside(column, numbers):
            low, high = column.limits
            bad |= ~np.isfinite(numbers)
            outside |= ~((numbers >= low) & (numbers <= high))
        return numbers
    if column.is_integer:
        low, high = column.limits
        if min(values) < low or max(values) > high:
            values = _replaced(values, lambda value: low <= value <= high, low, bad)
    if (allowed := column.allowed) is not None and not set(values).issubset(allowed):
        values = _replaced(values, lambda value: value in allowed, values[0], bad)
    if not column.is_text:
        return np.array(values, column.dtype)
    if column.min_length is not None or column.max_length is not None:
        least, most = column.min_length or 0, math.inf if column.max_length is None else column.max_length
        values = _replaced(values, lambda value: least <= len(value) <= most, "", bad)
    texts = np.empty(len(values), object)
    texts[:] = [value.encode() for value in values]
    return texts


def _inside(column: Column, numbers: np.ndarray) -> bool:
    """Return whether all numbers are finite and in the column's range."""
    low, high = column.limits
    least, most = numbers.min(), numbers.max()  # NaN, if there is one
    return bool(low <= least and most <= high and (not column.is_float or (np.isfinite(least) and np.isfinite(most))))


def _filler(column: Column) -> Any:
    return "" if column.is_text else False if column.dtype == "bool" else 0


def _replaced(values: Iterable[Any], is_good: Callable[[Any], bool], filler: Any, bad: np.ndarray) -> list[Any]:
    """Return the values, with a filler in place of those that are not good; sets `bad` for these."""
    good = [is_good(value) for value in values]
    bad |= ~np.array(good)
    return [value if fits else filler for value, fits in zip(values, good, strict=True)]
