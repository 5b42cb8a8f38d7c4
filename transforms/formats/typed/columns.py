"""Columns that a format stores with types of its own (Parquet, Avro, ORC) to those of the contract."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import plain_type
from beam_score.transforms.common.names import near_miss
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.contract.values import carry, convert, fits
from beam_score.transforms.formats.base import Chunk, ReadSettings, UnusableFile
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import FAULTS, NO_REJECTED, Fault, faults_column
from beam_score.transforms.rows.origin import Origin


def kept_types(schema: pa.Schema, settings: ReadSettings) -> dict[str, pa.DataType]:
    """Return the columns of a file with the types that they are kept with. Raises UnusableFile."""
    for field in schema:
        if settings.keep is None or field.name in settings.keep:
            check_possible(field)
    return {field.name: plain_type(field.type) for field in schema}


def used_columns(schema: pa.Schema, settings: ReadSettings) -> list[str]:
    """Return names of the contract's columns that the file has, then of the kept ones.

    Raises:
      UnusableFile: see docs/contract.md.
    """
    contract = settings.contract_columns
    names = schema.names
    kept = settings.kept_undeclared
    if settings.keep is None:
        kept = tuple(dict.fromkeys(n for n in names if n not in contract))
    times, types = collections.Counter(names), dict(zip(names, schema.types, strict=True))
    used = []
    for name in (*contract, *kept):
        column = contract.get(name)
        if times[name] > 1:
            raise UnusableFile("duplicate_key", f"column {name!r} occurs {times[name]} times", name)
        if not times[name] and (column is None or column.required):
            message = f"column {name!r} is missing{near_miss(name, names)}"
            raise UnusableFile("missing_column", message, name)
        if not times[name]:
            continue
        check_possible(schema.field(name))
        if column is not None:
            check_type(name, column, types[name])
        elif not pa.types.is_null(found := plain_type(types[name])) and found != settings.kept_types.get(name, found):
            message = (
                f"the kept column {name!r} is {found}, and {settings.kept_types[name]} in the first file: "
                "declare it, or do not keep it"
            )
            raise UnusableFile("wrong_type", message, name)
        used.append(name)
    if settings.extra == "reject":
        known = {*contract, *kept}
        if extra := next((n for n in names if n not in known), None):
            message = f"column {extra!r} is not in the contract{near_miss(extra, contract)}"
            raise UnusableFile("not_allowed", message, extra)
    return used


def check_possible(field: pa.Field) -> None:
    """Raise UnusableFile for a column of an impossible type."""
    types = [field.type]
    while types:
        type_ = types.pop()
        if pa.types.is_fixed_size_list(type_) and type_.list_size < 0:
            message = f"its schema is damaged: column {field.name!r} is of lists of {type_.list_size} values"
            raise UnusableFile("unreadable", message, field.name)
        types += [type_.field(i).type for i in range(type_.num_fields)]


def check_type(name: str, column: Column, type_: pa.DataType) -> None:
    if not fits(type_, column):
        message = f"column {name!r} is {type_}, expected {column.describe()}"
        raise UnusableFile("wrong_type", message, name)


def chunk_of(batch: pa.RecordBatch, row: int, settings: ReadSettings) -> Chunk:
    """Return used columns as a chunk; the first row is number `row`."""
    arrays: dict[str, pa.Array] = {ROW: pa.array(np.arange(row, row + batch.num_rows))}
    faults: list[Fault] = []
    contract, names = settings.contract_columns, batch.schema.names
    for name, column in contract.items():
        if name in names:
            arrays[name], found = convert(batch[name], name, column, settings.payload)
            faults += found
        else:
            arrays[name] = pa.nulls(batch.num_rows, column.arrow_type)
    for name in names:
        if name not in contract:
            arrays[name], found = carry(batch[name], name, settings.payload)
            if pa.types.is_null(arrays[name].type):  # a file in which no row has a value
                arrays[name] = pa.nulls(batch.num_rows, settings.kept_types.get(name, pa.string()))
            faults += found
    if faults:
        arrays[FAULTS] = faults_column(batch.num_rows, faults, settings.columns.order)
    origin = Origin("columns", row, batch) if settings.payload else None
    return Chunk(pa.RecordBatch.from_pydict(arrays), NO_REJECTED, origin)


def rows_at_once(batch: pa.RecordBatch, settings: ReadSettings) -> int:
    """Return how many rows of a batch a chunk may have."""
    per_row = max(1, batch.nbytes // max(1, batch.num_rows))
    return max(1, min(settings.max_block_rows, settings.max_block_bytes // per_row))


def first_line(error: BaseException) -> str:
    """Return the message of an error of a decoding library, truncated."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def python_rows(batches: Iterable[pa.RecordBatch], count: int) -> list[dict[str, Any]]:
    """Return the first rows of some batches as Python values, for a draft."""
    found: list[dict[str, Any]] = []
    for batch in batches:
        found += batch.slice(0, count - len(found)).to_pylist()
    return found
