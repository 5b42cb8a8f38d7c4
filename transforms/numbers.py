"""Numbers and booleans out of text, a whole column at a time, by the rules of `docs/contract.md`:
a value is taken if it stands for exactly one value of the dtype, and nothing is guessed."""

from __future__ import annotations

import decimal
import re

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

_BLANKS = " \t"
_INTEGER_TYPES = {"uint64": pl.UInt64}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)


def _masks(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(count, bool), np.zeros(count, bool)


def parse_float(text: pa.Array, dtype: str) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Text to floats: the nearest float64, rounded to the dtype.

    Returns:
      values of `dtype` (null where the text is null or no number), a mask of what is no number
      (wrong_type), and a mask of numbers that overflow the dtype (out_of_range). `nan`, `inf` and
      their spellings are numbers.
    """
    wrong, overflow = _masks(len(text))
    series = pl.from_arrow(text)
    wide = series.cast(pl.Float64, strict=False)
    if wide.null_count() != text.null_count:
        wide = wide.fill_null(series.str.strip_chars(_BLANKS).cast(pl.Float64, strict=False))
        wrong = (wide.is_null() & series.is_not_null()).to_numpy()
    exact = wide.to_numpy(writable=False)
    with np.errstate(over="ignore"):
        narrow = exact if dtype == "float64" else exact.astype(dtype)
    if not np.isfinite(narrow).all():
        endless = np.isinf(narrow)
        if endless.any():
            # Text with a digit that became infinite did overflow; `inf` and its spellings have none.
            at = np.flatnonzero(endless)
            digits = series.gather(at).str.contains("[0-9]").fill_null(False).to_numpy()
            overflow[at[digits]] = True
    nulls = None if not wide.null_count() else wide.is_null().to_numpy()
    return pa.array(narrow, mask=nulls, from_pandas=False), wrong, overflow


def parse_integer(text: pa.Array, dtype: str) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Text to integers, decimal texts of integer value included (`7.0`, `7e2`), exact beyond 2^53.

    Returns the same as `parse_float`.
    """
    wrong, overflow = _masks(len(text))
    series = pl.from_arrow(text)
    type_ = _INTEGER_TYPES.get(dtype, pl.Int64)
    wide = series.cast(type_, strict=False)
    if wide.null_count() != text.null_count:
        # Whole files are written `7.0` (pandas, with gaps), or padded with blanks: still vectorised.
        plain = series.str.strip_chars(_BLANKS).str.replace(r"^([+-]?[0-9]+)\.0*$", "$1")
        wide = wide.fill_null(plain.cast(type_, strict=False))
        left = np.flatnonzero((wide.is_null() & series.is_not_null()).to_numpy())
        if len(left):
            wide, wrong, overflow = _parse_odd_integers(plain, wide, left, wrong, overflow)
    if dtype in ("int64", "uint64"):
        return wide.to_arrow(), wrong, overflow
    values = wide.to_numpy(writable=False) if not wide.null_count() else wide.fill_null(0).to_numpy()
    info = np.iinfo(dtype)
    if len(values) and (values.min() < info.min or values.max() > info.max):
        overflow |= (values < info.min) | (values > info.max)
    nulls = None if not wide.null_count() else wide.is_null().to_numpy()
    return pa.array(values.astype(dtype), mask=nulls), wrong, overflow


def _parse_odd_integers(plain, wide, left, wrong, overflow):
    """What polars does not take: `7e2`, `+.7e1`, numbers too large, and what is no number. Each
    distinct text once."""
    info = np.iinfo(np.uint64 if wide.dtype == pl.UInt64 else np.int64)
    distinct = {t: integer_value(t) for t in plain.gather(left).unique().to_list()}
    verdicts = [distinct[t] for t in plain.gather(left).to_list()]
    fixed_at, fixed = [], []
    for at, value in zip(left.tolist(), verdicts, strict=True):
        if value is None:
            wrong[at] = True
        elif not info.min <= value <= info.max:
            overflow[at] = True
        else:
            fixed_at.append(at)
            fixed.append(value)
    if fixed:
        wide = wide.scatter(fixed_at, pl.Series(fixed, dtype=wide.dtype))
    return wide, wrong, overflow


def integer_value(text: str) -> int | None:
    """The integer that a decimal text stands for; None where it is no number or has a fraction.

    A number beyond any dtype comes back as some such number, never expanded digit by digit."""
    if not _NUMBER.fullmatch(text):
        return None
    number = decimal.Decimal(text)
    if number.is_zero():
        return 0
    sign, digits, exponent = number.as_tuple()
    if exponent < 0:
        # Exact, whatever the length: the digits after the point must all be zero.
        if any(digits[exponent:]) or len(digits) <= -exponent:
            return None
        digits, exponent = digits[:exponent], 0
    if len(digits) + exponent > 30:
        return -(10**30) if sign else 10**30
    value = int("".join(map(str, digits))) * 10**exponent
    return -value if sign else value


def parse_bool(text: pa.Array, dtype: str) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """`true false 1 0`, in any case, to booleans. Returns the same as `parse_float`."""
    folded = pc.ascii_lower(pc.utf8_trim(text, characters=_BLANKS))
    true = pc.is_in(folded, pa.array(["true", "1"]))
    known = pc.or_(true, pc.is_in(folded, pa.array(["false", "0"])))
    wrong = pc.and_(text.is_valid(), pc.invert(known)).to_numpy(zero_copy_only=False)
    values = pc.if_else(known, true, pa.scalar(None, pa.bool_()))
    return values, wrong, np.zeros(len(text), bool)
