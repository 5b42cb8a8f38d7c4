"""Parsing of lines of any form, by Arrow's JSON parser with the contract as its schema.

Arrow accepts a block or fails as a whole; it usually names the row it failed at, and that row is left to the exact
judge. Input that it accepts wrongly is caught here or before (`transforms.formats.jsonl.rows`): NaN and Infinity, more
than one object a line, and one object over several lines.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from beam_score.transforms.contract.columns import Column
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.jsonl.lines import Lines
from beam_score.transforms.formats.jsonl.top_level import TopLevel

_ROW = re.compile(r"in row ([0-9]+)\Z")
_NOT_FINITE = re.compile(rb"[:,\[ -](?:NaN|Inf)")
_FEW, _DENSE, _MOST_DOUBLED = 16, 3, 8
_WINDOW = 256
_OPEN, _CLOSE = b"{}"


class ArrowLines:
    """Parses the lines whose values Arrow can convert to the contract's dtypes.

    Args:
      settings: what to read.
    """

    def __init__(self, settings: ReadSettings):
        self._columns = settings.contract_columns
        self._kept = settings.kept_undeclared
        # Arrow does not report what is inside {"b64": ...}, and would refuse kept columns as not in the contract.
        self._able = bool(self._columns) and all(c.dtype != "bytes" for c in self._columns.values())
        self._able = self._able and not (self._kept and settings.extra == "reject")
        schema = pa.schema([(name, _wide_type(c)) for name, c in self._columns.items()])
        self._parse_options = pajson.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="error" if settings.extra == "reject" else "ignore"
        )

    def take(self, lines: Lines) -> tuple[np.ndarray, pa.RecordBatch | None]:
        """Return the positions of the lines that it parsed, and their columns in order."""
        none = np.array([], np.int64), None
        if not self._able:
            return none
        text = np.frombuffer(lines.data, np.uint8)
        able = (text[lines.starts] == _OPEN) & (text[lines.ends - 1] == _CLOSE)
        suspect = b"NaN" in lines.data or b"Inf" in lines.data
        for match in _NOT_FINITE.finditer(lines.data) if suspect else ():
            able[np.searchsorted(lines.starts, match.start(), side="right") - 1] = False
        index = np.flatnonzero(able)
        if not len(index):
            return none
        picked = lines if len(index) == len(lines) else lines.pick(index)
        table = self._read(picked.data)
        if table is None:
            bad = self._bad_rows(picked)
            index = np.delete(index, bad)
            if not len(index):
                return none
            picked = lines.pick(index)
            table = self._read(picked.data)
        if table is None or table.num_rows != len(index):
            return none
        good = np.ones(len(index), bool)
        columns = [_narrow(_whole(table[name]), c, good) for name, c in self._columns.items()]
        columns = [c.cast(s.arrow_type) for c, s in zip(columns, self._columns.values(), strict=True)]
        if self._kept:
            members = TopLevel(picked.data, picked.starts)
            good &= ~members.has_escaped_key()
            for name in self._kept:
                texts, times = members.texts(name)
                good &= times <= 1
                columns.append(texts)
        if not good.all():
            mask = pa.array(good)
            columns, index = [c.filter(mask) for c in columns], index[good]
        if not len(index):
            return none
        return index, pa.RecordBatch.from_arrays(columns, [*self._columns, *self._kept])

    def _read(self, data: bytes) -> pa.Table | None:
        try:
            return self._parse(data)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None

    def _parse(self, data: bytes | memoryview) -> pa.Table:
        options = pajson.ReadOptions(use_threads=False, block_size=len(data) + 1)
        return pajson.read_json(pa.BufferReader(data), read_options=options, parse_options=self._parse_options)

    def _bad_rows(self, lines: Lines) -> list[int]:
        """Return the lines without which Arrow accepts the others, possibly with some good lines."""
        view = memoryview(lines.data)
        bad: list[int] = []
        at, window, dense = 0, len(lines), 0
        while at < len(lines):
            stop = min(at + window, len(lines))
            try:
                self._parse(view[lines.starts[at] : lines.ends[stop - 1]])
                at, window = stop, window * 4
                continue
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                named = _ROW.search(str(error))
            if named and int(named.group(1)) < stop - at:
                passed = int(named.group(1))
                dense = dense + 1 if passed < _FEW else 0
                at += passed
                # If failures are dense, a run of lines is given up to save a call for each; each time a longer one,
                # since a call takes as long as the judge takes for ten lines.
                given_up = _FEW << min(dense - _DENSE, _MOST_DOUBLED) if dense >= _DENSE else 1
                bad += range(at, min(at + given_up, len(lines)))
                at += given_up
                window = _WINDOW if passed < _FEW else max(_WINDOW, window)
            elif stop - at <= _FEW:
                bad += range(at, stop)
                at = stop
            else:
                window = (stop - at) // 2
        return bad


def _wide_type(column: Column) -> pa.DataType:
    """Return the type to request from Arrow: wide enough that a value out of range does not fail its neighbours."""
    if column.is_float:
        type_ = pa.float64()
    elif column.is_integer:
        type_ = pa.uint64() if column.dtype == "uint64" else pa.int64()
    else:
        type_ = column.scalar_type
    for _ in column.shape:
        type_ = pa.list_(type_)
    return type_


def _narrow(array: pa.Array, column: Column, good: np.ndarray) -> pa.Array:
    """Return the column in its own dtype; clears `good` for rows of another shape, with nulls in a list, or out of
    the dtype's range. The value of a row that is not good is undefined."""
    if column.shape:
        rows = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
        flat, wrong = array, np.zeros(len(array), bool)
        for size in column.shape:
            if flat.null_count and flat is not array:
                wrong[rows[flat.is_null().to_numpy(zero_copy_only=False)]] = True
            lengths = pc.fill_null(pc.list_value_length(flat), 0).to_numpy(zero_copy_only=False)
            valid = flat.is_valid().to_numpy(zero_copy_only=False)
            rows_of = rows if flat is not array else np.arange(len(array))
            if size is not None:
                wrong[rows_of[valid & (lengths != size)]] = True
            rows, flat = np.repeat(rows_of, lengths), flat.flatten()
        if flat.null_count:
            wrong[rows[flat.is_null().to_numpy(zero_copy_only=False)]] = True
        fits = _fits(flat, column)
        if not fits.all():
            wrong[rows[~fits]] = True
        if wrong.any():
            good &= ~wrong
            array = pc.if_else(pa.array(~wrong), array, pa.scalar(None, array.type))
        return _cast_lists(array, column)
    fits = _fits(array, column)
    if not fits.all():
        good &= fits
        array = pc.if_else(pa.array(fits), array, pa.scalar(None, array.type))
    return _cast(array, column)


def _fits(flat: pa.Array, column: Column) -> np.ndarray:
    """Return a mask of the values in the dtype's range; null is in range."""
    if not column.is_numeric or column.dtype in ("int64", "uint64"):
        return np.ones(len(flat), bool)
    numbers = flat.fill_null(0).to_numpy() if flat.null_count else flat.to_numpy()
    if column.is_float:
        with np.errstate(over="ignore"):
            return np.isfinite(numbers.astype(column.dtype))
    info = np.iinfo(column.dtype)
    return (numbers >= info.min) & (numbers <= info.max)


def _cast(flat: pa.Array, column: Column) -> pa.Array:
    if not column.is_float:
        return flat.cast(column.scalar_type)
    nulls = flat.is_null().to_numpy(zero_copy_only=False) if flat.null_count else None
    numbers = flat.fill_null(0).to_numpy() if flat.null_count else flat.to_numpy()
    return pa.array(numbers.astype(column.dtype), column.scalar_type, mask=nulls)


def _cast_lists(array: pa.Array, column: Column) -> pa.Array:
    levels, flat = [], array
    for _ in column.shape:
        levels.append(flat)
        flat = flat.flatten()
    flat = _cast(flat, column)
    for level in reversed(levels):
        lengths = pc.fill_null(pc.list_value_length(level), 0).to_numpy(zero_copy_only=False)
        mask = level.is_null() if level.null_count else None
        offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
        flat = pa.ListArray.from_arrays(offsets, flat, mask=mask)
    return flat


def _whole(chunked: pa.ChunkedArray) -> pa.Array:
    return chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()
