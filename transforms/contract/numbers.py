"""Parses numbers and booleans from text, a whole column at a time, by the rules of `docs/contract.md`:
a value is accepted if it represents exactly one value of the dtype, and nothing is guessed."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLANKS = " \t"
# Possessive: backtracking into the digits, of which there may be a megabyte, never helps.
_NUMBER = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]*+)(?:\.([0-9]*+))?(?:[eE]([+-]?)([0-9]++))?", re.ASCII)
_BEYOND_ANY = 10**30
_FEW = 4096  # texts: to trim all of them takes less time than a second cast of those that need it


def parse_float(text: pa.Array, dtype: str) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Parse text as floats: the nearest float64, rounded to the dtype.

    Returns:
      values of `dtype`, null where the text is null, and arbitrary where a mask is true; a mask of texts that are
      not numbers (wrong_type); and a mask of numbers that overflow the dtype (out_of_range). `nan`, `inf` and
      their spellings are numbers.
    """
    few = len(text) <= _FEW
    if few:
        text = pc.utf8_trim(text, BLANKS)
    values, not_taken = _cast(text, "Float64")
    wrong, overflow = np.zeros(len(text), bool), np.zeros(len(text), bool)
    if few:
        wrong[not_taken] = True
    elif len(not_taken):
        values = values.copy()
        left = pc.utf8_trim(text.take(pa.array(not_taken)), BLANKS)
        values[not_taken], still = _cast(left, "Float64")
        wrong[not_taken[still]] = True
    if dtype != "float64":
        with np.errstate(over="ignore"):
            values = values.astype(dtype)
    endless = np.flatnonzero(np.isinf(values))
    if len(endless):
        # An infinite value whose text has a digit did overflow; `inf` and its spellings have no digit.
        texts = text.take(pa.array(endless))
        overflow[endless] = pc.match_substring_regex(texts, "[0-9]").to_numpy(zero_copy_only=False)
    return _with_nulls_of(text, values), wrong, overflow


def with_decimal_point(text: pa.Array) -> pa.Array:
    """Replace decimal commas by points; texts with a point become invalid. Digit group separators are not
    supported."""
    return pc.if_else(pc.match_substring(text, "."), "x", pc.replace_substring(text, ",", "."))


def parse_integer(text: pa.Array, dtype: str) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Parse text as integers, including decimal texts of integer value (`7.0`, `7e2`), exact beyond 2^53.

    Returns the same as `parse_float`.
    """
    type_ = "UInt64" if dtype == "uint64" else "Int64"
    values, not_taken = _cast(text, type_)
    wrong, overflow = np.zeros(len(text), bool), np.zeros(len(text), bool)
    if len(not_taken):
        values = values.copy()
        # Whole files may be written as `7.0` (pandas, with gaps), or padded with blanks: still vectorised.
        left = pc.utf8_trim(text.take(pa.array(not_taken)), BLANKS)
        plain = pc.replace_substring_regex(left, r"^([+-]?[0-9]+)\.0*$", r"\1")
        values[not_taken], still = _cast(plain, type_)
        if len(still):
            at = not_taken[still]
            odd = plain.take(pa.array(still)).to_pylist()
            values[at], wrong[at], overflow[at] = _odd_integers(odd, values.dtype)
    info = np.iinfo(dtype)
    if values.dtype != dtype:
        if len(values) and (values.min() < info.min or values.max() > info.max):
            overflow |= (values < info.min) | (values > info.max)
        values = values.astype(dtype)
    return _with_nulls_of(text, values), wrong, overflow


def _cast(text: pa.Array, type_: str) -> tuple[np.ndarray, np.ndarray]:
    """Cast texts by polars: return the values, 0 for texts that it does not accept, and the positions of these.

    Args:
      type_: the name of a type of polars.
    """
    import polars as pl  # it takes a quarter of a second, and clean rows do not need it

    found = pl.from_arrow(text).cast(getattr(pl, type_), strict=False).to_arrow()
    if not found.null_count:
        return found.to_numpy(), np.array([], np.int64)
    null = found.is_null().to_numpy(zero_copy_only=False)
    if text.null_count:
        null &= text.is_valid().to_numpy(zero_copy_only=False)
    return pc.fill_null(found, 0).to_numpy(), np.flatnonzero(null)


def _with_nulls_of(text: pa.Array, values: np.ndarray) -> pa.Array:
    mask = text.is_null().to_numpy(zero_copy_only=False) if text.null_count else None
    return pa.array(values, mask=mask, from_pandas=False)


def _odd_integers(texts: list[str], dtype: np.dtype) -> tuple[np.ndarray, list[bool], list[bool]]:
    """Parse the texts that polars does not accept: `7e2`, `+.7e1`, too large numbers, and texts that are not
    numbers. Each distinct text is parsed once.

    Returns values, 0 where a mask is true; a mask of wrong_type; and a mask of out_of_range.
    """
    info = np.iinfo(dtype)
    distinct = {text: integer_value(text) for text in set(texts)}
    found = [distinct[text] for text in texts]
    wrong = [value is None for value in found]
    overflow = [value is not None and not info.min <= value <= info.max for value in found]
    values = [0 if w or o else value for value, w, o in zip(found, wrong, overflow, strict=True)]
    return np.array(values, dtype), wrong, overflow


def integer_value(text: str) -> int | None:
    """Return the integer value of a decimal text; None if it is not a number or has a fraction.

    A number beyond any dtype is returned as an arbitrary such number, never expanded digit by digit."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent_sign, exponent = (group or "" for group in match.groups())
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    # No text has enough digits to compensate an exponent of 18 digits.
    exponent = exponent.lstrip("0")
    shift = 10**18 if len(exponent) > 18 else int(exponent or "0")
    shift = (-shift if exponent_sign == "-" else shift) - len(fraction)
    significant = digits.rstrip("0")
    shift += len(digits) - len(significant)
    if shift < 0:
        return None
    value = _BEYOND_ANY if len(significant) + shift > 30 else int(significant) * 10**shift
    return -value if sign == "-" else value


def parse_bool(text: pa.Array, dtype: str) -> tuple[pa.Array, np.ndarray, np.ndarray]:
    """Parse `true false 1 0`, in any case, as booleans. Returns the same as `parse_float`."""
    folded = pc.ascii_lower(pc.utf8_trim(text, characters=BLANKS))
    true = pc.is_in(folded, pa.array(["true", "1"]))
    known = pc.or_(true, pc.is_in(folded, pa.array(["false", "0"])))
    wrong = pc.and_(text.is_valid(), pc.invert(known)).to_numpy(zero_copy_only=False)
    values = pc.if_else(known, true, pa.scalar(None, pa.bool_()))
    return values, wrong, np.zeros(len(text), bool)
