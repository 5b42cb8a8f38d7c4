"""Conversion of typed values from binary formats (Parquet, tf.Example) to the contract's dtypes, or to faults.

A value is accepted if it represents exactly one value of the column's dtype; only a number that
becomes a float is rounded, to the nearest float64 and then to the dtype. Works on whole arrays:
Python objects are made only for values at fault.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.transforms.arrays.nested import fixed
from beam_score.transforms.arrays.plain import is_text, plain, plain_type, spread
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.contract.single_values import convert_values, without_nan
from beam_score.transforms.rows.faults import Fault

_SHOWN_CHARS = 40
_WHAT = {
    "wrong_type": "of another type",
    "out_of_range": "outside the range of the dtype",
    "not_finite": "not finite",
    "bad_encoding": "text that is not valid UTF-8",
    "missing_value": "a list with a null in it",
}

NAN_HINT = "; to read NaN as missing set nan: missing"

_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def convert(array: pa.Array, name: str, column: Column, show: bool) -> tuple[pa.Array, list[Fault]]:
    """Convert one column to the type of the contract.

    Args:
      array: of a type that `fits`; may contain nulls.
      name: of the column, for messages.
      show: whether messages may quote values.

    Returns:
      an array of `column.arrow_type`, null where the value is missing or at fault; and the faults,
      at most one per row.
    """
    array = plain(array)
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), column.arrow_type), []
    if column.shape:
        return _convert_lists(array, name, column, show)
    values, bad = convert_values(array, column)
    return values, [_fault(name, column, reason, index, array.take(pa.array(index)), show) for index, reason in bad]


def fits(type_: pa.DataType, column: Column) -> bool:
    """Return whether a Parquet column of this type can contain values of the column at all (docs/contract.md)."""
    for _ in column.shape:
        type_ = plain_type(type_)
        if pa.types.is_null(type_):
            return True
        if not any(is_list(type_) for is_list in _LISTS):
            return False
        type_ = type_.value_type
    type_ = plain_type(type_)
    if pa.types.is_null(type_):
        return True
    if column.is_float:
        return pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
    if column.is_integer:
        return pa.types.is_integer(type_) or pa.types.is_floating(type_)
    if column.dtype == "bool":
        return pa.types.is_boolean(type_) or pa.types.is_integer(type_)
    return is_text(type_)


def carry(array: pa.Array, name: str, show: bool) -> tuple[pa.Array, list[Fault]]:
    """Return a kept column that the contract does not declare, in its own plain type, and its faults.

    Its text must be UTF-8: it will be written, and readers crash on invalid text.
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
    message = f"column {name!r} is to be kept, but is {_WHAT['bad_encoding']}"
    return spread(array.filter(pa.array(keep)), keep), [Fault(index, name, "bad_encoding", message)]


def shown(value: Any) -> str:
    """Return a value as messages quote it, cut."""
    text = repr(value) if isinstance(value, str | bytes | float) else str(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def _is_valid(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _fault(name: str, column: Column, reason: str, index: np.ndarray, found: pa.Array, show: bool) -> Fault:
    expected = column.describe()
    if not show or reason == "missing_value":
        return Fault(index, name, reason, f"column {name!r} is {_WHAT[reason]}, expected {expected}")
    if reason == "not_finite":
        expected += NAN_HINT
    texts = [f"column {name!r} is {shown(v)}, expected {expected}" for v in _as_objects(found)]
    return Fault(index, name, reason, pa.array(texts, pa.string()))


def _as_objects(found: pa.Array) -> list[Any]:
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
    """Convert one column of flat values, in row-major order (tf.Example).

    Args:
      values: float32, int64 or binary, of a kind that the column accepts; no nulls.
      counts: number of values of each row; 0 is a missing value, unless the shape is open.
      rows: int64, ascending: positions of the rows that have the column.
      total: number of rows of the batch.

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
    leaves, found = convert_values(values, column)
    if column.shape and leaves.null_count and not found:  # values that are NaN
        found = [(np.flatnonzero(leaves.is_null().to_numpy(zero_copy_only=False)), "missing_value")]
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
    return spread(_nested(leaves, column, counts), at), faults


def _nested(leaves: pa.Array, column: Column, counts: np.ndarray) -> pa.Array:
    """Return leaves in row-major order as lists of the column's shape, which has at most one open dimension."""
    inner = 1
    for depth in range(len(column.shape) - 1, -1, -1):
        size = column.shape[depth]
        if size is not None:
            leaves, inner = pa.FixedSizeListArray.from_arrays(leaves, size), inner * size
        else:
            outer = math.prod(fixed(column.shape[:depth]))
            lengths = np.repeat(counts // (inner * outer), outer)
            leaves = pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(lengths)), pa.int32()), leaves)
    return leaves if leaves.type == column.arrow_type else leaves.cast(column.arrow_type)


# Lists.


def _convert_lists(array: pa.Array, name: str, column: Column, show: bool) -> tuple[pa.Array, list[Fault]]:
    present = np.ones(len(array), bool) if not array.null_count else array.is_valid().to_numpy(zero_copy_only=False)
    entries = array.filter(pa.array(present)) if array.null_count else array
    owner = np.flatnonzero(present)  # the row that each entry of the level belongs to
    bad = np.zeros(len(array), bool)
    faults: list[Fault] = []
    levels: list[np.ndarray] = []

    def drop(entries: pa.Array, owner: np.ndarray, wrong: np.ndarray) -> tuple[pa.Array, np.ndarray]:
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
    if column.lacks_nan:
        entries = without_nan(entries)
    nulls = entries.is_null().to_numpy(zero_copy_only=False) if entries.null_count else None
    values, found = convert_values(entries, column)
    if nulls is not None:
        found.append((np.flatnonzero(nulls), "missing_value"))
    if found:
        faults += _first_a_row(found, owner, entries, name, column, show)
        for index, _ in found:
            bad[owner[index]] = True
    if bad.any():
        # The remaining rows have no faults, so this recurses once.
        good = present & ~bad
        rest, _ = _convert_lists(array.filter(pa.array(good)), name, column, show)
        return spread(rest, good), faults
    for size, lengths in zip(reversed(column.shape), reversed(levels), strict=True):
        if size is None:
            offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
            values = pa.ListArray.from_arrays(pa.array(offsets), values)
        else:
            values = pa.FixedSizeListArray.from_arrays(values, size)
    return spread(values.cast(column.arrow_type), present), faults


def _first_a_row(
    found: Sequence[tuple[np.ndarray, str]],
    owner: np.ndarray,
    leaves: pa.Array,
    name: str,
    column: Column,
    show: bool,
) -> list[Fault]:
    """Convert faults of leaves to faults of rows: each row gets the fault of its first leaf at fault."""
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
