"""Vectorised conversion of single values to a contract's dtype.

Each conversion returns the values, null where they are missing or at fault, and a list of
`(positions, reason)` of the faults.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import broken_text, nulls_of, spread, values_of, with_values
from beam_score.transforms.contract.columns import Column

Found = list[tuple[np.ndarray, str]]


def without_nan(array: pa.Array) -> pa.Array:
    """Replace NaN by null."""
    if not pa.types.is_floating(array.type):
        return array
    nan = np.isnan(values_of(array))
    if not nan.any():
        return array
    if array.null_count:
        nan |= array.is_null().to_numpy(zero_copy_only=False)
    return pa.array(values_of(array), array.type, mask=nan)


def to_bool(array: pa.Array) -> tuple[pa.Array, Found]:
    """Convert the integers 0 and 1 to booleans."""
    values = values_of(array)
    return _masked(array, values != 0, [((values != 0) & (values != 1), "wrong_type")])


def convert_values(array: pa.Array, column: Column) -> tuple[pa.Array, Found]:
    """Convert values of any plain type that `transforms.contract.values.fits`."""
    if column.lacks_nan:
        array = without_nan(array)
    if array.type == column.scalar_type and column.dtype != "string":
        return array, []
    if column.dtype == "bool":
        return to_bool(array)
    if column.is_float:
        return _to_float(array, column.dtype)
    if column.is_integer:
        return _to_integer(array, column.dtype)
    if column.dtype == "string":
        return _to_string(array)
    return array.cast(column.scalar_type), []


def _to_float(array: pa.Array, dtype: str) -> tuple[pa.Array, Found]:
    if pa.types.is_decimal(array.type):
        # Through text, which is read as the nearest float64; the direct cast is not always exact.
        array = array.cast(pa.string()).cast(pa.float64())
    values = values_of(array)
    wide = values if values.dtype.kind == "f" else values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = wide.astype(dtype)
    over = np.isinf(narrow) & np.isfinite(wide) if narrow.itemsize < wide.itemsize else None
    return _masked(array, narrow, [(over, "out_of_range")])


def _to_integer(array: pa.Array, dtype: str) -> tuple[pa.Array, Found]:
    values, info = values_of(array), np.iinfo(dtype)
    if values.dtype.kind != "f":
        if np.can_cast(values.dtype, dtype):
            return _masked(array, values.astype(dtype), [])
        outside = (values < info.min) | (values > info.max) if _reaches_out(values, info) else None
        return _masked(array, values.astype(dtype), [(outside, "out_of_range")])
    values = values.astype(np.float64, copy=False)
    endless = ~np.isfinite(values)
    with np.errstate(invalid="ignore"):
        broken = (np.trunc(values) != values) & ~endless
        outside = ((values < float(info.min)) | (values >= float(int(info.max) + 1))) & ~endless & ~broken
        whole = np.where(endless | broken | outside, 0.0, values).astype(dtype)
    return _masked(array, whole, [(endless, "not_finite"), (broken, "wrong_type"), (outside, "out_of_range")])


def _reaches_out(values: np.ndarray, info: np.iinfo) -> bool:
    return bool(len(values)) and (values.min() < info.min or values.max() > info.max)


def _masked(
    array: pa.Array, values: np.ndarray, checks: Sequence[tuple[np.ndarray | None, str]]
) -> tuple[pa.Array, Found]:
    """Return `values` with the nulls of `array` and of the checks that found faults."""
    nulls = nulls_of(array) if array.null_count else None
    found = []
    for mask, reason in checks:
        if mask is not None and mask.any():
            mask = mask if nulls is None else mask & ~nulls
            if mask.any():
                found.append((np.flatnonzero(mask), reason))
    if not found and values.dtype != bool:  # Arrow's booleans are bits
        return with_values(array, values), []
    nulls = np.zeros(len(values), bool) if nulls is None else nulls
    for index, _ in found:
        nulls[index] = True
    return pa.array(values, mask=nulls, from_pandas=False), found


def _to_string(array: pa.Array) -> tuple[pa.Array, Found]:
    # Text is checked as bytes: a `string` column of a Parquet file may contain anything, and readers do not check.
    wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    raw = array.cast(pa.large_binary() if wide else pa.binary())
    try:
        return raw.cast(pa.large_string() if wide else pa.string()).cast(pa.string()), []
    except pa.ArrowInvalid:
        index = broken_text(raw)
    keep = np.ones(len(raw), bool)
    keep[index] = False
    return spread(raw.filter(pa.array(keep)).cast(pa.string()), keep), [(index, "bad_encoding")]
