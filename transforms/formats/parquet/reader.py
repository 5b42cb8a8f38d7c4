"""The Parquet reader: row groups to typed columns, page checksums verified.

Only the used columns are read. A row group is read to its end before its first row is yielded, so that damage costs
exactly one row group, however the rows are divided into blocks.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import plain_type
from beam_score.transforms.common.names import near_miss
from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.contract.values import carry, convert, fits
from beam_score.transforms.formats.base import Chunk, ReadSettings, UnusableFile
from beam_score.transforms.formats.parquet import ahead as parquet_spans
from beam_score.transforms.formats.parquet import suspects
from beam_score.transforms.formats.parquet.ahead import GroupsAhead
from beam_score.transforms.formats.parquet.file import (
    DAMAGE,
    READ_AHEAD_BYTES,
    ParquetInput,
    first_line,
    open_parquet,
    raise_unless_damage,
    reading,
    without_arrow_types,
)
from beam_score.transforms.formats.parquet.pages import BadPage
from beam_score.transforms.formats.parquet.sizes import TooLarge, rows_at_once
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import FAULTS, NO_REJECTED, Fault, faults_column, stretch
from beam_score.transforms.rows.origin import Origin
from beam_score.transforms.stores.compression import SMALL_BYTES

_WORST = 8
"""Rows with the longest texts of a dictionary take at most this many times `Bounds.decoded_bytes`."""

_BUFFERS_BYTES = 64 << 20
"""Total size of the buffers that the columns of a file are streamed through."""


def check(path: str, settings: ReadSettings, version: str | None = None) -> None:
    """Raise UnusableFile if the footer shows that no row of the file can be used."""
    with open_parquet(path, version) as opened:
        _used_columns(opened, settings)


def columns_of(path: str, settings: ReadSettings, version: str | None = None) -> dict[str, pa.DataType]:
    """Return the columns of a file with the types that they are kept with. Raises UnusableFile."""
    with open_parquet(path, version) as opened:
        for field in opened.schema:
            if settings.keep is None or field.name in settings.keep:
                _check_possible(field)
        return {field.name: plain_type(field.type) for field in opened.schema}


def first_rows(path: str, count: int) -> tuple[list[str], list[pa.RecordBatch]]:
    """Return at least the first rows of a file, if it has as many, of all readable columns; and the names of these.

    Raises:
      UnusableFile: no column is readable.
      OSError: the file cannot be read, which is not damage.
    """
    found: list[pa.RecordBatch] = []
    names: list[str] = []
    with open_parquet(path, None) as opened, reading(opened) as read_at:
        names = list(opened.schema.names)
        for group in (i for i, rows in enumerate(opened.rows) if rows):
            names = _readable(opened, group, list(dict.fromkeys(names)))
            settings = ReadSettings("parquet", Contract(columns={}), max_block_rows=count)
            try:
                at_once = _rows_at_once(opened, read_at, group, names, opened.leaves(set(names)), settings)
                for batch in opened.batches(group, at_once, names):
                    found.append(batch)
                    if sum(b.num_rows for b in found) >= count:
                        return names, found
            except (_Damage, *DAMAGE) as error:
                raise_unless_damage(error)
                if not found:
                    raise UnusableFile("unreadable", f"row group {group} is damaged: {first_line(error)}") from error
                return names, found
    return names, found


def _readable(opened: ParquetInput, group: int, names: list[str]) -> list[str]:
    """Return the columns that are neither encrypted nor damaged in the footer."""
    if opened.why_not(group, names) is None:
        return names
    half = len(names) // 2
    return [] if not half else _readable(opened, group, names[:half]) + _readable(opened, group, names[half:])


def cut(path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None) -> list[FileRange]:
    """Return ranges of whole row groups, of about `split_bytes` of the used columns each."""
    if size <= min(SMALL_BYTES, split_bytes):
        return [FileRange(path, size, bytes=size)]
    try:
        with open_parquet(path, version) as opened:
            names = _used_columns(opened, settings)
            leaves = opened.leaves(set(names))
            counts = opened.rows
            sizes = [_stored_bytes(opened, group, names, leaves) for group in range(len(counts))]
    except UnusableFile:
        return [FileRange(path, size, bytes=size)]  # the reader reports what is wrong
    ranges, start, first_row = [], 0, 0
    for end in range(1, len(sizes) + 1):
        # A range ends where the next group would move its size further from the target.
        taken = sum(sizes[start:end])
        if end == len(sizes) or taken + sizes[end] / 2 > split_bytes:
            ranges.append(FileRange(path, size, start, end, first_row, len(ranges), taken))
            first_row += sum(counts[start:end])
            start = end
    return ranges or [FileRange(path, size)]


def _stored_bytes(opened: ParquetInput, group: int, names: Sequence[str], leaves: Sequence[int]) -> int:
    """Return the bytes in the file of some columns of a row group; 0 if the footer is damaged there."""
    try:
        return sum(chunk.stored for chunk in opened.chunks(group, names, leaves))
    except ValueError:
        return 0


def read(range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
    """Yield the rows of some row groups (`start` to `end`); see `transforms.steps.read`.

    Raises:
      UnusableFile: as `check`.
      OSError: the file cannot be read, which is not damage.
    """
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_parquet(range_.path, range_.version))
        names = _used_columns(opened, settings)
        leaves = opened.leaves(set(names))
        schema = pa.schema([_without_view(opened.schema.field(name)) for name in names])
        metadata = None
        if any("fixed_size_list" in str(type_) for type_ in schema.types):
            metadata = without_arrow_types(opened.metadata)
        buffer = max(1 << 16, min(READ_AHEAD_BYTES, _BUFFERS_BYTES // max(1, len(leaves))))
        if metadata is not None or buffer < READ_AHEAD_BYTES:
            metadata = metadata or opened.metadata
            opened = stack.enter_context(open_parquet(range_.path, range_.version, metadata, buffer))
        read_at = stack.enter_context(reading(opened))
        counts = opened.rows
        groups = range(range_.start, len(counts) if range_.end < 0 else range_.end)
        ahead = None if opened.source is None else _ahead(opened, groups, names, leaves)
        row = range_.first_row
        suspected = suspects.why_not(range_.path, range_.version, tuple(groups), tuple(names)) is not None
        for group in groups:
            if ahead is not None:
                ahead.turn_of(group - range_.start)
            try:
                if suspected and (why := suspects.why_not(range_.path, range_.version, (group,), tuple(names))):
                    raise _Damage(why)
                at_once = _rows_at_once(opened, read_at, group, names, leaves, settings)
                for batch in _sound_batches(opened, group, at_once, schema, settings):
                    yield _chunk(batch, row, settings)
                    row += batch.num_rows
            except _Damage as error:
                message = f"row group {group} of {counts[group]} rows is damaged: {error}"
                letter = stretch(row, counts[group], "unreadable", message)
                yield Chunk(_chunk(_no_rows(schema), row, settings).rows, letter)
                row += counts[group]


class _Damage(Exception):
    pass


def _ahead(opened: ParquetInput, groups: Sequence[int], names: Sequence[str], leaves: Sequence[int]) -> GroupsAhead:
    spans = []
    for group in groups:
        try:
            chunks = opened.chunks(group, names, leaves)
        except ValueError:
            chunks = []  # reading it reports what is wrong
        spans.append(sorted((c.start, c.end) for c in chunks if c.start < c.end <= opened.source.size))
    return GroupsAhead(opened.source, spans)


def _rows_at_once(opened: ParquetInput, read_at, group: int, names, leaves, settings: ReadSettings) -> int:
    """Return how many rows of a row group to decode at once.

    Raises:
      _Damage: its pages do not match its footer.
      OSError: the file cannot be read, which is not damage.
    """
    if not names or not opened.rows[group]:
        return settings.max_block_rows
    try:
        chunks = opened.chunks(group, names, leaves)
        # The stream of a large row group of an object keeps only the first bytes of each column.
        whole = opened.source is None or sum(chunk.stored for chunk in chunks) <= parquet_spans.HELD_BYTES
        pages = [(chunk, chunk.pages(read_at, whole)) for chunk in chunks]
        worst_bytes = _WORST * settings.bounds.decoded_bytes
        return rows_at_once(opened, group, pages, settings.max_block_rows, settings.max_block_bytes, worst_bytes)
    except (BadPage, TooLarge, ValueError) as error:
        raise _Damage(first_line(error)) from error


def _without_view(field: pa.Field) -> pa.Field:
    """Return a field without view types: pyarrow (25) cannot take rows from an array of views, as rejected rows
    require."""
    return field.with_type(
        {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(field.type, field.type)
    )


def _used_columns(opened: ParquetInput, settings: ReadSettings) -> list[str]:
    """Return names of the contract's columns that the file has, then of the kept ones.

    Raises:
      UnusableFile: see docs/contract.md.
    """
    schema, contract = opened.schema, settings.contract_columns
    names = schema.names
    kept = settings.kept_undeclared
    if settings.keep is None:
        kept = tuple(dict.fromkeys(n for n in names if n not in contract))
    times, types = collections.Counter(names), dict(zip(names, schema.types, strict=True))
    used = []
    for name in (*contract, *kept):
        column = contract.get(name)
        if times[name] > 1:
            raise UnusableFile("duplicate_key", f"column {name!r} is there {times[name]} times", name)
        if not times[name] and (column is None or column.required):
            message = f"column {name!r} is not there{near_miss(name, names)}"
            raise UnusableFile("missing_column", message, name)
        if not times[name]:
            continue
        _check_possible(schema.field(name))
        if column is not None:
            _check_type(name, column, types[name])
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
    _check_open(opened, used)
    return used


def _check_possible(field: pa.Field) -> None:
    """Raise UnusableFile for a column of an impossible type."""
    types = [field.type]
    while types:
        type_ = types.pop()
        if pa.types.is_fixed_size_list(type_) and type_.list_size < 0:
            message = f"its schema is damaged: column {field.name!r} is of lists of {type_.list_size} values"
            raise UnusableFile("unreadable", message, field.name)
        types += [type_.field(i).type for i in range(type_.num_fields)]


def _check_open(opened: ParquetInput, used: Sequence[str]) -> None:
    """Raise UnusableFile if a used column is encrypted: the first row group shows that."""
    group = next((i for i, rows in enumerate(opened.rows) if rows), None)
    if group is None or (why := opened.why_not(group, used)) is None or "crypt" not in why:
        return
    name = next((n for n in used if (found := opened.why_not(group, [n])) and "crypt" in found), None)
    message = f"column {name!r} is encrypted, and encrypted columns are not read: write it without, or do not use it"
    raise UnusableFile("unreadable", message, name)


def _check_type(name: str, column: Column, type_: pa.DataType) -> None:
    if not fits(type_, column):
        message = f"column {name!r} is {type_}, expected {column.describe()}"
        raise UnusableFile("wrong_type", message, name)


def _sound_batches(
    opened: ParquetInput, group: int, at_once: int, schema: pa.Schema, settings: ReadSettings
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a row group, none before all could be read: a row group of more than `Bounds.decoded_bytes`
    is read twice.

    Raises:
      _Damage: before the first batch.
    """
    held: list[pa.RecordBatch] = []
    size = rows = 0
    for batch in _batches(opened, group, at_once, schema, settings):
        rows += batch.num_rows
        size += batch.nbytes
        if size <= settings.bounds.decoded_bytes:
            held.append(batch)
        else:
            held.clear()
    if rows != opened.rows[group]:
        raise _Damage(f"it holds {rows} rows")
    if size > settings.bounds.decoded_bytes:
        yield from _batches(opened, group, at_once, schema, settings)
    while held:
        yield held.pop(0)


def _batches(
    opened: ParquetInput, group: int, at_once: int, schema: pa.Schema, settings: ReadSettings
) -> Iterator[pa.RecordBatch]:
    try:
        joined: list[pa.RecordBatch] = []
        rows = size = 0
        for batch in opened.batches(group, at_once, schema.names):
            batch = batch.select(schema.names)  # a name with dots may have selected others too
            if batch.schema.types != schema.types:
                batch = batch.cast(schema)
            joined.append(batch)
            rows += batch.num_rows
            size += batch.nbytes
            if rows + at_once > settings.max_block_rows or size >= settings.max_block_bytes:
                yield from _pieces(joined, size, settings)
                joined, rows, size = [], 0, 0
        yield from _pieces(joined, size, settings)
    except DAMAGE as error:
        raise_unless_damage(error)
        raise _Damage(first_line(error)) from error


def _pieces(joined: list[pa.RecordBatch], size: int, settings: ReadSettings) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some batches, in batches of about the size of a block."""
    if joined:
        batch = joined[0] if len(joined) == 1 else pa.concat_batches(joined)
        joined.clear()
        pieces = -(-size // max(1, 2 * settings.max_block_bytes))
        step = max(1, -(-batch.num_rows // max(1, pieces)))
        for start in range(0, batch.num_rows, step):
            yield batch.slice(start, step)


def _chunk(batch: pa.RecordBatch, row: int, settings: ReadSettings) -> Chunk:
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


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, type_) for type_ in schema.types], schema=schema)
