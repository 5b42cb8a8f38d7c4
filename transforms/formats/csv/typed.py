"""Direct parsing of numbers from CSV, where pyarrow's own parser can be trusted.

It parses numbers in half the time that a later cast from text takes, but it fails a whole block for one bad value,
reads 0x10 as 16, and does not distinguish 1e400 from inf. So only a number inside the contract's limits is accepted as
it was parsed. The texts of bad values, once seen, are parsed as null. The other values, and these nulls, are in doubt:
the reader reads their records again as text, and `judge` of `transforms.scoring.validate` decides, as it does for a
column that is text. A column with many doubtful values, or with many different bad ones, is read as text for the rest
of the range. All ways accept a value with the same result: nothing depends on which was taken.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import nulls_of, numpy_type, values_of, with_values
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.contract.limits import Limits
from beam_score.transforms.rows.faults import Fault
from beam_score.transforms.scoring.validate import judge

_FAILED = re.compile(r"In CSV column #([0-9]+):.* invalid value '(.*)'\Z", re.DOTALL)

_MOST_BAD_TEXTS = 8
"""Each costs another parse of the block in which it is seen first."""

_LONGEST_BAD_TEXT = 40
"""Characters; pyarrow takes a level of its stack for each."""

_MOST_IN_DOUBT = 0.25
"""Share of a column's values; to judge one of these takes some four times as long as to read a value as text."""


_MOST_REMEMBERED = 1000
"""Texts of a column whose fate is remembered; there are often few bad ones."""

_NONE = np.array([], np.int64)

_LAST: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...] | None] = {}
"""The bad texts, each with a column, of the last range with these columns and dtypes; None if one of its columns had to
be read as text. The next range begins with them, and saves the reads that find them. Only the time depends on it."""

_MOST_LAST = 100


@dataclasses.dataclass(frozen=True)
class Typed:
    """A column parsed as numbers.

    Attributes:
      numbers: in the column's dtype; arbitrary where null or in doubt.
      null: where a value is missing, bool.
      doubtful: positions, int64, at which the text decides.
    """

    numbers: np.ndarray
    null: np.ndarray
    doubtful: np.ndarray

    def as_array(self) -> pa.Array:
        return pa.array(self.numbers, mask=self.null if self.null.any() else None)


class _Fate(NamedTuple):
    """The judgement of a text."""

    value: Any
    is_null: bool
    reason: str = ""
    message: str = ""


class TypedColumns:
    """The columns that are parsed directly, by name.

    Args:
      columns: the contract's.

    Attributes:
      bad_texts: texts to parse as null, which puts them in doubt; of each, a column that has it.
      was_bad: whether the last range with these columns had one that had to be read as text.
    """

    def __init__(self, columns: dict[str, Column]):
        self._columns = {
            n: c for n, c in columns.items() if c.is_numeric and not c.shape and c.allowed is None and c.decimal != ","
        }
        self._limits = Limits(self._columns)
        self._key = tuple((name, column.dtype) for name, column in self._columns.items())
        last = _LAST.get(self._key, ())
        self.was_bad = last is None
        if self.was_bad:
            _LAST.pop(self._key, None)  # until a column of this range is given up, too
        self.bad_texts: dict[str, str] = dict(last or ())
        self._known: dict[str, dict[str | None, _Fate]] = {}

    def types(self, data: bytes) -> dict[str, pa.DataType]:
        """Return the type to parse each column as, in a block of text."""
        # The prefix in another column only costs a little time.
        hexadecimal = any(c.is_integer for c in self._columns.values()) and (
            (b"x" in data and b"0x" in data) or (b"X" in data and b"0X" in data)  # one byte is found faster than two
        )
        # Floats of all dtypes are the nearest float64, rounded (docs/contract.md).
        return {
            name: pa.float64() if column.is_float else column.scalar_type
            for name, column in self._columns.items()
            if column.is_float or not hexadecimal
        }

    def is_direct(self, name: str) -> bool:
        """Return whether a column is still parsed directly."""
        return name in self._columns

    def give_up(self, name: str) -> None:
        """Read the column as text from now on."""
        del self._columns[name]
        self.bad_texts = {text: of for text, of in self.bad_texts.items() if of != name}
        self._remember()

    def learn(self, name: str, text: str) -> bool:
        """Remember the text of a bad value of a column; return False if it is known, so that a null does not help, or
        too long, or one too many."""
        if text in self.bad_texts or len(text) > _LONGEST_BAD_TEXT or len(self.bad_texts) == _MOST_BAD_TEXTS:
            return False
        self.bad_texts[text] = name
        self._remember()
        return True

    def _remember(self) -> None:
        if self._key not in _LAST and len(_LAST) >= _MOST_LAST:
            _LAST.clear()
        _LAST[self._key] = tuple(self.bad_texts.items()) if len(self._columns) == len(self._key) else None

    def certain(self, parsed: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Return the parsed columns, in their dtype, of which no value is null, in doubt, or outside the contract."""
        if not self._limits.are_many:
            return {}
        with np.errstate(over="ignore", invalid="ignore"):
            rows = pa.RecordBatch.from_pydict({n: self._in_dtype(n, values) for n, values in parsed.items()})
        return {name: rows[name] for name in self._limits.held(rows)}

    def _in_dtype(self, name: str, values: pa.Array) -> pa.Array:
        type_ = self._columns[name].scalar_type
        return values if values.type == type_ else with_values(values, values_of(values).astype(numpy_type(type_)))

    def accept(self, name: str, values: pa.Array, nulls_doubtful: bool) -> Typed | None:
        """Return a parsed column; None if too much of it is in doubt.

        Args:
          nulls_doubtful: whether it was parsed with bad texts as null.
        """
        column = self._columns[name]
        numbers = values_of(values)
        null = nulls_of(values)
        if column.is_float:
            with np.errstate(over="ignore", invalid="ignore"):
                numbers = numbers.astype(column.dtype)
        doubt = null
        # Nulls have a number, too: if it is outside, that only takes time.
        if len(numbers) and not _all_inside(column, numbers.min(), numbers.max()):
            low, high = column.limits
            with np.errstate(invalid="ignore"):
                doubt = ~((numbers >= low) & (numbers <= high))  # NaN is not inside
            if column.is_float:
                doubt |= ~np.isfinite(numbers)
            doubt |= null
        if not nulls_doubtful:
            doubt = doubt & ~null
        doubtful = np.flatnonzero(doubt)
        if len(doubtful) > _MOST_IN_DOUBT * len(values):
            return None
        return Typed(numbers, null, doubtful)

    def judged(self, name: str, typed: Typed, texts: pa.Array, show_values: bool) -> tuple[Typed, list[Fault]]:
        """Return the column with the values in doubt decided, and their faults.

        Args:
          texts: of the values in doubt, in order; null for a missing value, which `validate` judges.
          show_values: see `validate`.
        """
        encoded = texts.dictionary_encode("encode")
        fates = self._fates(name, encoded.dictionary, show_values)
        code = encoded.indices.to_numpy()
        numbers, null = typed.numbers.copy(), typed.null.copy()
        numbers[typed.doubtful] = np.array([fate.value for fate in fates], numbers.dtype)[code]
        null[typed.doubtful] = np.array([fate.is_null for fate in fates])[code]
        faults = []
        for reason in dict.fromkeys(fate.reason for fate in fates if fate.reason):
            own = np.flatnonzero(np.array([fate.reason == reason for fate in fates])[code])
            messages = pa.array([fate.message for fate in fates], pa.string()).take(pa.array(code[own]))
            faults.append(Fault(typed.doubtful[own], name, reason, messages))
        numbers[null] = numbers[np.argmin(null)]  # of the first without a null: a null must not look out of range
        return Typed(numbers, null, _NONE), faults

    def _fates(self, name: str, texts: pa.Array, show_values: bool) -> list[_Fate]:
        """Return the fate of each of some distinct texts. Those that were seen before are remembered."""
        known = self._known.setdefault(name, {})
        found = texts.to_pylist()
        if new := [text for text in found if text not in known]:
            if len(known) + len(new) > _MOST_REMEMBERED:
                known.clear()
                new = found
            plain = self._columns[name].model_copy(update={"required": False, "default": None})
            judged = judge(name, plain, pa.array(new, pa.string()), None, show_values)
            fates = [
                _Fate(*one) for one in zip(values_of(judged.values), nulls_of(judged.values).tolist(), strict=True)
            ]
            for fault in judged.faults:
                for index, message in zip(fault.index.tolist(), fault.messages().to_pylist(), strict=True):
                    fates[index] = _Fate(fates[index].value, True, fault.reason, message)
            known.update(zip(new, fates, strict=True))
        return [known[text] for text in found]


def _all_inside(column: Column, least: np.generic, most: np.generic) -> bool:
    if column.is_float and not (np.isfinite(least) and np.isfinite(most)):
        return False
    low, high = column.limits
    return bool(low <= least and most <= high)


def failed_value(error: pa.ArrowInvalid) -> tuple[int, str] | None:
    """Return the number of the field, from 0, that pyarrow failed to convert, and the text of the value; None for
    another error."""
    found = _FAILED.match(str(error))
    return (int(found[1]), found[2]) if found else None
