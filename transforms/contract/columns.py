"""The contract's columns: the rules for valid rows of input data (see `docs/contract.md`)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pydantic

from beam_score.transforms.arrays.nested import fixed
from beam_score.transforms.common.settings import Strict
from beam_score.transforms.contract.limits import Limits

Dtype = Literal[
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "string",
    "bytes",
]

_ARROW = {
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "bytes": pa.binary(),
} | {f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)}


# Integers remain integers, exact beyond 2^53; neither text nor a boolean is a number.
Number = pydantic.StrictInt | pydantic.StrictFloat


class Column(Strict):
    """The rules for valid values of one column.

    `shape` is () for a scalar, (3,) for a vector, (2, 3) for lists of lists; None is an open dimension.
    A missing value is replaced by `default`; without one, its row is rejected.
    `range` includes both ends and is compared in the column's dtype. Lengths are characters of a
    string, bytes of a bytes value. `strip` removes spaces and tabs around text, before it is compared with `nulls`.
    `from_` `string`: the file contains the numbers as strings. `decimal` is the decimal point of numbers in text.
    `nan` `missing`: NaN is a missing value. None for `strip`, `decimal` or `nan`: the setting of the input applies.
    `unit` and `meaning` are documentation.
    """

    dtype: Dtype
    shape: tuple[int | None, ...] = ()
    required: bool = True
    default: Any = None
    range: tuple[Number | None, Number | None] | None = None
    allowed: tuple[Any, ...] | None = None
    min_length: int | None = pydantic.Field(default=None, ge=0)
    max_length: int | None = pydantic.Field(default=None, ge=0)
    finite: bool = True
    nulls: tuple[str, ...] = ()
    strip: bool | None = None
    from_: Literal["string"] | None = pydantic.Field(default=None, validation_alias="from", serialization_alias="from")
    decimal: Literal[".", ","] | None = None
    nan: Literal["number", "missing"] | None = None
    unit: str | None = None
    meaning: str | None = None

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("float")

    @property
    def is_integer(self) -> bool:
        return "int" in self.dtype

    @property
    def is_numeric(self) -> bool:
        return self.is_float or self.is_integer

    @property
    def is_text(self) -> bool:
        return self.dtype in ("string", "bytes")

    @property
    def as_read(self) -> Column:
        """The column in files that are not text: a string, if `from: string` is set."""
        return self if self.from_ is None else self._as_string

    @functools.cached_property
    def _as_string(self) -> Column:
        return Column(dtype="string", required=self.required, nulls=self.nulls)

    @property
    def trims(self) -> bool:
        """True if spaces and tabs around the values are removed."""
        return bool(self.strip) and self.dtype == "string" and not self.shape

    @property
    def lacks_nan(self) -> bool:
        """True if NaN is a missing value."""
        return self.nan == "missing"

    def within(self, strip: bool, decimal: str, nan: str = "number") -> Column:
        """Return the column with these settings of the input, unless it has its own."""
        new: dict[str, Any] = {}
        if strip and self.strip is None and self.dtype != "bytes" and not self.shape:
            new["strip"] = True
        if decimal != "." and self.decimal is None and self.is_numeric:
            new["decimal"] = decimal
        if nan != "number" and self.nan is None and self.is_numeric:
            new["nan"] = nan
        return self.model_copy(update=new) if new else self

    @property
    def scalar_type(self) -> pa.DataType:
        """The Arrow type of one value."""
        return _ARROW[self.dtype]

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of the column after validation: one level of lists per dimension, fixed-size
        for fixed dimensions."""
        type_ = self.scalar_type
        for size in reversed(self.shape):
            type_ = pa.list_(type_) if size is None else pa.list_(type_, size)
        return type_

    @property
    def size(self) -> int | None:
        """Number of values per row (the product of the shape); None if a dimension is open."""
        return None if None in self.shape else math.prod(fixed(self.shape))

    @functools.cached_property
    def limits(self) -> tuple[Any, Any]:
        """Both ends of `range` in the column's dtype: numpy numbers for floats, ints for integers (for a
        fraction, the nearest integer inside the range). An open end is the limit of the dtype."""
        low, high = self.range or (None, None)
        if self.is_integer:
            info = np.iinfo(self.dtype)
            low = (
                info.min
                if low is None or low == -math.inf
                else low
                if low == math.inf
                else max(info.min, math.ceil(low))
            )
            high = (
                info.max
                if high is None or high == math.inf
                else high
                if high == -math.inf
                else min(info.max, math.floor(high))
            )
            return low, high
        with np.errstate(over="ignore"):
            dtype = np.dtype(self.dtype).type
            return dtype(-math.inf if low is None else low), dtype(math.inf if high is None else high)

    def describe(self) -> str:
        """Return the expectation for messages: `float32 (contract: range 0..150)`."""
        return self._description

    @functools.cached_property
    def _description(self) -> str:
        text = self.dtype + (
            "" if not self.shape else "[" + ", ".join("?" if d is None else str(d) for d in self.shape) + "]"
        )
        rules = []
        if self.range:
            low, high = (
                "" if end is None else f"{end:.15g}" if isinstance(end, float) else str(end) for end in self.range
            )
            rules.append(f"range {low}..{high}")
        if self.allowed is not None:
            shown = ", ".join(str(a) for a in self.allowed[:5])
            rules.append(f"allowed {shown}" + (" ..." if len(self.allowed) > 5 else ""))
        if self.min_length is not None or self.max_length is not None:
            rules.append(f"length {self.min_length or 0}..{'' if self.max_length is None else self.max_length}")
        return text + (f" (contract: {'; '.join(rules)})" if rules else "")

    @pydantic.model_validator(mode="after")
    def _agrees_with_itself(self) -> Column:
        problems = []
        if any(d is not None and not 1 <= d < 1 << 31 for d in self.shape):
            problems.append(f"shape {list(self.shape)}: dimensions are positive numbers, or null for an open one")
        if self.range is not None:
            problems += self._problems_of_range(*self.range)
        if self.strip and (self.dtype == "bytes" or self.shape):
            problems.append("strip is for single texts and numbers: remove it for bytes and lists")
        if self.from_ is not None and (self.is_text or self.shape):
            problems.append("from: string is for single numbers and booleans: remove it")
        if self.decimal is not None and not self.is_numeric:
            problems.append(f"decimal is for numbers, but this column is {self.dtype}: remove it")
        if self.nan is not None and not self.is_numeric:
            problems.append(f"nan is for numbers, but this column is {self.dtype}: remove it")
        if (self.min_length is not None or self.max_length is not None) and not self.is_text:
            problems.append(f"min_length and max_length are for string and bytes, but this column is {self.dtype}")
        if self.min_length is not None and self.max_length is not None and self.min_length > self.max_length:
            problems.append(f"min_length {self.min_length} is more than max_length {self.max_length}")
        if self.allowed is not None:
            if not self.allowed:
                problems.append("allowed is empty: no value would be valid")
            if self.is_float:
                problems.append("allowed is for integers, bool and text: use range for floats")
            problems += [f"allowed value {a!r}: {why}" for a in self.allowed if (why := self._misfit(a))]
        if self.default is not None and not problems:
            problems += self._misfits_in(self.default, self.shape, "default")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems_of_range(self, low: float | None, high: float | None) -> list[str]:
        if not self.is_numeric:
            return [f"range is for numbers, but this column is {self.dtype}: use allowed or max_length"]
        if low != low or high != high:
            return ["range: an end must not be NaN; use null for an open end"]
        if low is not None and high is not None and low > high:
            return [f"range [{low}, {high}] is empty: the low end comes first"]
        try:
            least, most = self.limits
        except OverflowError:
            return [f"range: an end is outside the range of {self.dtype}; use null for an open end"]
        if least > most or least == math.inf or most == -math.inf:
            return [f"range [{low}, {high}] contains no value of {self.dtype}"]
        return []

    def _misfits_in(self, value: Any, shape: tuple[int | None, ...], name: str) -> list[str]:
        if not shape:
            if why := self._misfit(value):
                return [f"{name} {value!r}: {why}"]
            return [f"{name} {value!r} violates the column's rules: {self.describe()}"] if self._forbids(value) else []
        if not isinstance(value, list | tuple) or (shape[0] is not None and len(value) != shape[0]):
            return [f"{name} {value!r}: expected a list of shape {list(shape)}"]
        return [p for item in value for p in self._misfits_in(item, shape[1:], name)]

    def _misfit(self, value: Any) -> str | None:
        """Return why a value of the job file is not of this dtype; None if it is."""
        if self.dtype == "bool":
            return None if isinstance(value, bool) else "expected true or false"
        if self.dtype in ("string", "bytes"):
            return None if isinstance(value, str) else f"expected text: write it in quotes, '{value}'"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"expected a number of dtype {self.dtype}"
        if self.is_integer:
            info = np.iinfo(self.dtype)
            if (isinstance(value, float) and not value.is_integer()) or not info.min <= value <= info.max:
                return f"expected an integer from {info.min} to {info.max}"
        elif value not in (math.inf, -math.inf) and abs(value) > float(np.finfo(self.dtype).max):
            return f"does not fit {self.dtype}"
        return None

    def _forbids(self, value: Any) -> bool:
        if self.is_float and self.finite and not math.isfinite(value):
            return True
        if self.range is not None:
            low, high = self.limits
            value_in_dtype = np.dtype(self.dtype).type(value)
            if value_in_dtype < low or value_in_dtype > high:
                return True
        if self.is_text:
            length = len(value) if self.dtype == "string" else len(value.encode())
            if length < (self.min_length or 0) or (self.max_length is not None and length > self.max_length):
                return True
        return self.allowed is not None and value not in self.allowed


def is_refused(name: str) -> bool:
    """Return whether a column may not have this name: it is empty, or names of our own begin like it."""
    return not name or name.startswith(("#", "input/", "output/"))


class Contract(Strict):
    """All columns that are validated, in the order in which the faults of a row are reported."""

    columns: Mapping[str, Column]

    @pydantic.model_validator(mode="after")
    def _names(self) -> Contract:
        bad = [n for n in self.columns if is_refused(n)]
        if bad:
            raise ValueError(f"column names {bad}: must not be empty, nor begin with #, input/ or output/")
        return self

    @property
    def order(self) -> dict[str, int]:
        """Rank of each column."""
        return {name: rank for rank, name in enumerate(self.columns)}

    @functools.cached_property
    def limits(self) -> Limits:
        """The limits of all numbers."""
        return Limits(self.columns)
