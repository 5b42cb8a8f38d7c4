"""Typed values from binary formats (Parquet, tf.Example) to the contract's dtypes, or faults.

A value is accepted if it stands for exactly one value of the column's dtype; only a number that
becomes a float is rounded, to the nearest float64 and then to the dtype. Works on whole arrays:
Python objects are made only of values at fault.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.block import Fault, fault_lists
from transforms.contract import Column

_SHOWN_CHARS = 40
_WHAT = {
    "wrong_type": "of another type",
    "out_of_range": "beyond what the dtype holds",
    "not_finite": "not finite",
    "bad_encoding": "text that is not valid UTF-8",
    "missing_value": "a list with a null in it",
}

_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def convert(array: pa.Array, name: str, column: Column, show: bool) -> tuple[pa.Array, list[Fault]]:
    """One column as the contract wants it.

    Args:
      array: of a type that `fits`; may hold nulls.
      name: the column's, for messages.
      show: whether messages may quote values.

    Returns:
      an array of `column.arrow_type`, null where the value is missing or at fault; and the faults,
      at most one a row.
    """
    array = plain(array)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), column.arrow_type), []
    if column.shape:
        return _convert_lists(array, name, column, show)
    values, bad = _convert_leaves(array, column)
    return values, [_fault(name, column, reason, index, array.take(pa.array(index)), show) for index, reason in bad]


def fits(type_: pa.DataType, column: Column) -> bool:
    """Whether a Parquet column of this type can hold values of the column at all (semantics.md)."""
    for _ in column.shape:
        type_ = _plain_type(type_)
        if pa.types.is_null(type_):
            return True
        if not any(is_list(type_) for is_list in _LISTS):
            return False
        type_ = type_.value_type
    type_ = _plain_type(type_)
    if pa.types.is_null(type_):
        return True
    if column.is_float:
        return pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
    if column.is_integer:
        return pa.types.is_integer(type_) or pa.types.is_floating(type_)
    if column.dtype == "bool":
        return pa.types.is_boolean(type_)
    return _is_text(type_)


def carry(array: pa.Array, name: str, show: bool) -> tuple[pa.Array, list[Fault]]:
    """A kept column that the contract does not declare, in its own plain type.

    Text in it must be UTF-8: it is going to be written, and readers of broken text crash.
    """
    array = plain(array)
    try:
        array.validate(full=True)
        return array, []
    except pa.ArrowInvalid:
        index = np.array([i for i in range(len(array)) if not _is_valid(array.take(pa.array([i])))], np.int64)
    if not len(index):
        return array, []
    keep = np.ones(len(array), bool)
    keep[index] = False
    message = f"column {name!r} is {_WHAT['bad_encoding']}, and was to be kept"
    return _spread(array.filter(pa.array(keep)), keep), [Fault(index, name, "bad_encoding", message)]


def faults_column(count: int, faults: Sequence[Fault], order: Mapping[str, int]) -> pa.Array:
    """The `FAULTS` column of a batch of `count` rows: null where a row has none."""
    positions, errors = fault_lists(faults, order)
    at = np.zeros(count, bool)
    at[positions] = True
    return _spread(errors, at)


def shown(value: Any) -> str:
    """A value as a message quotes it, cut."""
    text = repr(value) if isinstance(value, str | bytes | float) else str(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def plain(array: pa.Array) -> pa.Array:
    """The same values without a dictionary, a view, or a fixed width of binary."""
    type_ = _plain_type(array.type)
    return array if type_ == array.type else array.cast(type_)


def values_of(array: pa.Array) -> np.ndarray:
    """The buffer of a numeric array as numpy, without a copy; anything where it is null."""
    data = array.buffers()[1]
    dtype = np.dtype(array.type.to_pandas_dtype())
    if data is None:
        return np.zeros(len(array), dtype)
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize)


def _plain_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_) or pa.types.is_fixed_size_binary(type_):
        return pa.binary()
    return type_


def _is_text(type_: pa.DataType) -> bool:
    return (
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
    )


def _is_valid(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _spread(values: pa.Array, at: np.ndarray) -> pa.Array:
    """`values`, one each where `at` is true, and null elsewhere."""
    if len(values) == len(at):
        return values
    return values.take(pa.array(np.cumsum(at) - 1, mask=~at))


def _fault(name: str, column: Column, reason: str, index: np.ndarray, found: pa.Array, show: bool) -> Fault:
    expected = column.describe()
    if not show or reason == "missing_value":
        return Fault(index, name, reason, f"column {name!r} is {_WHAT[reason]}, expected {expected}")
    texts = [f"column {name!r} is {shown(v)}, expected {expected}" for v in _as_objects(found)]
    return Fault(index, name, reason, pa.array(texts, pa.string()))


def _as_objects(found: pa.Array) -> list:
    if pa.types.is_string(found.type) or pa.types.is_large_string(found.type):
        found = found.cast(pa.large_binary())  # it may be at fault for not being UTF-8
    values = found.to_pylist()
    return [_decoded(v) if isinstance(v, bytes) else v for v in values]


def _decoded(value: bytes) -> str | bytes:
    try:
        return value[: 4 * _SHOWN_CHARS].decode()
    except UnicodeDecodeError:
        return value[:_SHOWN_CHARS]


def convert_flat(
    values: pa.Array, counts: np.ndarray, rows: np.ndarray, total: int, name: str, column: Column, show: bool
) -> tuple[pa.Array, list[Fault]]:
    """One column of values that come flat, in row-major order (tf.Example).

    Args:
      values: float32, int64 or binary, of a kind that the column takes; no nulls.
      counts: how many of them each row has; none at all is a missing value, unless the shape is open.
      rows: int64, ascending: positions of the rows that have the column.
      total: rows of the batch.

    Returns:
      as `convert`.
    """
    sizes = [size for size in column.shape if size is not None]
    size, is_open = math.prod(sizes), len(sizes) < len(column.shape)
    wrong = (counts % size != 0) if is_open else (counts != size) & (counts != 0)
    keep = ~wrong if is_open else counts == size
    faults: list[Fault] = []
    if wrong.any():
        texts = [f"column {name!r} has values: {n}, expected {column.describe()}" for n in counts[wrong]]
        faults.append(Fault(rows[wrong], name, "wrong_shape", pa.array(texts, pa.string())))
    if not keep.all():
        values = values.filter(pa.array(np.repeat(keep, counts)))
        rows, counts = rows[keep], counts[keep]
    leaves, found = _to_bool(values) if column.dtype == "bool" else _convert_leaves(values, column)
    if found:
        owner = np.repeat(np.arange(len(rows)), counts)
        faults += [
            dataclasses.replace(fault, index=rows[fault.index])
            for fault in _first_a_row(found, owner, values, name, column, show)
        ]
        keep = np.ones(len(rows), bool)
        for index, _ in found:
            keep[owner[index]] = False
        leaves = leaves.filter(pa.array(np.repeat(keep, counts)))
        rows, counts = rows[keep], counts[keep]
    at = np.zeros(total, bool)
    at[rows] = True
    return _spread(_nested(leaves, column, counts), at), faults


def _nested(leaves: pa.Array, column: Column, counts: np.ndarray) -> pa.Array:
    """Leaves in row-major order as lists of the column's shape, at most one dimension of it open."""
    inner = 1
    for depth in range(len(column.shape) - 1, -1, -1):
        size = column.shape[depth]
        if size is not None:
            leaves, inner = pa.FixedSizeListArray.from_arrays(leaves, size), inner * size
        else:
            outer = math.prod(column.shape[:depth])
            lengths = np.repeat(counts // (inner * outer), outer)
            leaves = pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(lengths)), pa.int32()), leaves)
    return leaves if leaves.type == column.arrow_type else leaves.cast(column.arrow_type)


def _to_bool(array: pa.Array):
    values = values_of(array)
    found = np.flatnonzero((values != 0) & (values != 1))
    return pa.array(values != 0), [(found, "wrong_type")] if len(found) else []


# Lists.


def _convert_lists(array: pa.Array, name: str, column: Column, show: bool) -> tuple[pa.Array, list[Fault]]:
    present = np.ones(len(array), bool) if not array.null_count else array.is_valid().to_numpy(zero_copy_only=False)
    entries = array.filter(pa.array(present)) if array.null_count else array
    owner = np.flatnonzero(present)  # the row that each entry of the level belongs to
    bad = np.zeros(len(array), bool)
    faults: list[Fault] = []
    levels: list[np.ndarray] = []

    def drop(entries, owner, wrong):
        bad[owner[wrong]] = True
        keep = ~bad[owner]
        return entries.filter(pa.array(keep)), owner[keep]

    for size in column.shape:
        if entries.null_count:  # below the first level: a null inside a list
            wrong = entries.is_null().to_numpy(zero_copy_only=False)
            faults.append(_fault(name, column, "missing_value", np.unique(owner[wrong]), entries, show))
            entries, owner = drop(entries, owner, wrong)
        if pa.types.is_null(entries.type):
            entries = pa.nulls(len(entries), pa.list_(pa.null()))
        lengths = pc.list_value_length(entries).to_numpy(zero_copy_only=False).astype(np.int64)
        if size is not None and (lengths != size).any():
            wrong = lengths != size
            rows, first = np.unique(owner[wrong], return_index=True)
            texts = [f"column {name!r} has a list of {n}, expected {column.describe()}" for n in lengths[wrong][first]]
            faults.append(Fault(rows, name, "wrong_shape", pa.array(texts, pa.string())))
            entries, owner = drop(entries, owner, wrong)
            lengths = np.full(len(owner), size, np.int64)
        levels.append(lengths)
        entries, owner = plain(entries.flatten()), np.repeat(owner, lengths)
    if pa.types.is_null(entries.type):
        entries = pa.nulls(len(entries), column.scalar_type)
    nulls = entries.is_null().to_numpy(zero_copy_only=False) if entries.null_count else None
    values, found = _convert_leaves(entries, column)
    if nulls is not None:
        found.append((np.flatnonzero(nulls), "missing_value"))
    if found:
        faults += _first_a_row(found, owner, entries, name, column, show)
        for index, _ in found:
            bad[owner[index]] = True
    if bad.any():
        # What is left is without fault, so this happens once.
        good = present & ~bad
        rest, _ = _convert_lists(array.filter(pa.array(good)), name, column, show)
        return _spread(rest, good), faults
    for size, lengths in zip(reversed(column.shape), reversed(levels), strict=True):
        if size is None:
            offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
            values = pa.ListArray.from_arrays(pa.array(offsets), values)
        else:
            values = pa.FixedSizeListArray.from_arrays(values, size)
    return _spread(values.cast(column.arrow_type), present), faults


def _first_a_row(found, owner, leaves, name, column, show) -> list[Fault]:
    """Faults of leaves as faults of rows: the first leaf at fault tells for its row."""
    index = np.concatenate([i for i, _ in found])
    which = np.repeat(np.arange(len(found)), [len(i) for i, _ in found])
    sort = np.argsort(index, kind="stable")
    index, which = index[sort], which[sort]
    rows, first = np.unique(owner[index], return_index=True)
    faults = []
    for at, (_, reason) in enumerate(found):
        mine = which[first] == at
        if mine.any():
            values = leaves.take(pa.array(index[first][mine]))
            faults.append(_fault(name, column, reason, rows[mine], values, show))
    return faults


# Single values. Each gives the values, null where at fault, and (positions, reason) of the faults.


def _convert_leaves(array: pa.Array, column: Column) -> tuple[pa.Array, list[tuple[np.ndarray, str]]]:
    if array.type == column.scalar_type and not column.dtype == "string":
        return array, []
    if column.is_float:
        return _to_float(array, column.dtype)
    if column.is_integer:
        return _to_integer(array, column.dtype)
    if column.dtype == "string":
        return _to_string(array)
    return array.cast(column.scalar_type), []


def _to_float(array: pa.Array, dtype: str):
    if pa.types.is_decimal(array.type):
        # By way of text, which is read as the nearest float64; the direct cast is not always.
        array = array.cast(pa.string()).cast(pa.float64())
    values = values_of(array)
    wide = values if values.dtype.kind == "f" else values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = wide.astype(dtype)
    over = np.isinf(narrow) & np.isfinite(wide) if narrow.itemsize < wide.itemsize else None
    return _masked(array, narrow, [(over, "out_of_range")])


def _to_integer(array: pa.Array, dtype: str):
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


def _masked(array: pa.Array, values: np.ndarray, checks):
    """`values` with the nulls of `array` and of the checks that found something."""
    nulls = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    found = []
    for mask, reason in checks:
        if mask is not None and mask.any():
            mask = mask if nulls is None else mask & ~nulls
            if mask.any():
                found.append((np.flatnonzero(mask), reason))
    for index, _ in found:
        nulls = np.zeros(len(values), bool) if nulls is None else nulls
        nulls[index] = True
    return pa.array(values, mask=nulls, from_pandas=False), found


def _to_string(array: pa.Array):
    # Text is looked at as bytes: Parquet files may say `string` of anything, and no reader checks.
    wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
    raw = array.cast(pa.large_binary() if wide else pa.binary())
    try:
        return raw.cast(pa.large_string() if wide else pa.string()).cast(pa.string()), []
    except pa.ArrowInvalid:
        index = broken_text(raw)
    keep = np.ones(len(raw), bool)
    keep[index] = False
    return _spread(raw.filter(pa.array(keep)).cast(pa.string()), keep), [(index, "bad_encoding")]


def broken_text(raw: pa.Array) -> np.ndarray:
    """Positions of the values of a binary array that are not valid UTF-8."""
    raw = raw.cast(pa.large_binary())
    offsets = np.frombuffer(raw.buffers()[1], np.int64, len(raw) + 1, raw.offset * 8)
    data = np.frombuffer(raw.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    high = np.flatnonzero(data >= 0x80) + offsets[0]  # plain ASCII needs no look
    suspects = np.unique(np.searchsorted(offsets, high, side="right") - 1)
    return np.array([i for i in suspects.tolist() if not _is_utf8(raw[i].as_py())], np.int64)


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False
