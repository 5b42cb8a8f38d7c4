"""The Parquet reader: row groups to typed columns, page checksums verified.

Only the used columns are read. A row group is read to its end before its first row is yielded, so that damage costs
exactly one row group, however the rows are divided into blocks.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.formats.base import Chunk, Format, ReadSettings, UnusableFile
from beam_score.transforms.formats.first_rows import FirstRows, Hints
from beam_score.transforms.formats.parquet import ahead as parquet_spans
from beam_score.transforms.formats.parquet.ahead import GroupsAhead
from beam_score.transforms.formats.parquet.file import (
    DAMAGE,
    READ_AHEAD_BYTES,
    ParquetInput,
    open_parquet,
    raise_unless_damage,
    reading,
    without_arrow_types,
)
from beam_score.transforms.formats.parquet.pages import BadPage
from beam_score.transforms.formats.parquet.sizes import TooLarge, rows_at_once
from beam_score.transforms.formats.typed import suspects
from beam_score.transforms.formats.typed.columns import chunk_of, first_line, kept_types, python_rows, used_columns
from beam_score.transforms.rows.faults import stretch
from beam_score.transforms.stores.compression import SMALL_BYTES
from beam_score.transforms.stores.object_file import ObjectFile

_WORST = 8
"""Rows with the longest texts of a dictionary take at most this many times `Bounds.decoded_bytes`."""

_BUFFERS_BYTES = 64 << 20
"""Total size of the buffers that the columns of a file are streamed through."""


class Parquet(Format):
    """Parquet: typed columns in row groups."""

    name, title = "parquet", "Parquet"
    suffixes = (".parquet", ".pq")
    magic = re.compile(rb"PAR1[\0-\x08\x0e-\x1f\x7f-\xff]")  # text would continue with a printable character

    def check(self, path: str, settings: ReadSettings, version: str | None = None) -> None:
        with open_parquet(path, version) as opened:
            _used_columns(opened, settings)

    def columns_of(
        self, path: str, settings: ReadSettings, version: str | None = None
    ) -> dict[str, pa.DataType] | None:
        with open_parquet(path, version) as opened:
            return kept_types(opened.schema, settings)

    def cut(
        self, path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None
    ) -> list[FileRange]:
        return cut(path, size, split_bytes, settings, version)

    def read(self, range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
        return read(range_, settings)

    def first_rows(self, path: str, count: int, hints: Hints) -> FirstRows:
        names, batches = first_batches(path, count)
        return FirstRows(python_rows(batches, count), tuple(names))


FORMAT = Parquet()


def _used_columns(opened: ParquetInput, settings: ReadSettings) -> list[str]:
    """Return names of the contract's columns that the file has, then of the kept ones. Raises UnusableFile."""
    used = used_columns(opened.schema, settings)
    _check_open(opened, used)
    return used


def first_batches(path: str, count: int) -> tuple[list[str], list[pa.RecordBatch]]:
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
    ranges: list[FileRange] = []
    start = first_row = 0
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
        ahead = None if opened.source is None else _ahead(opened, opened.source, groups, names, leaves)
        row = range_.first_row
        asked = (FORMAT.name, range_.path, range_.version)
        suspected = suspects.why_not(*asked, tuple(groups), tuple(names)) is not None
        for group in groups:
            if ahead is not None:
                ahead.turn_of(group - range_.start)
            try:
                if suspected and (
                    why := suspects.why_not(FORMAT.name, range_.path, range_.version, (group,), tuple(names))
                ):
                    raise _Damage(why)
                at_once = _rows_at_once(opened, read_at, group, names, leaves, settings)
                for batch in _sound_batches(opened, group, at_once, schema, settings):
                    yield chunk_of(batch, row, settings)
                    row += batch.num_rows
            except _Damage as error:
                message = f"row group {group} of {counts[group]} rows is damaged: {error}"
                letter = stretch(row, counts[group], "unreadable", message)
                yield Chunk(chunk_of(_no_rows(schema), row, settings).rows, letter)
                row += counts[group]


class _Damage(Exception):
    pass


def _ahead(
    opened: ParquetInput, source: ObjectFile, groups: Sequence[int], names: Sequence[str], leaves: Sequence[int]
) -> GroupsAhead:
    spans = []
    for group in groups:
        try:
            chunks = opened.chunks(group, names, leaves)
        except ValueError:
            chunks = []  # reading it reports what is wrong
        spans.append(sorted((c.start, c.end) for c in chunks if c.start < c.end <= source.size))
    return GroupsAhead(source, spans)


def _rows_at_once(
    opened: ParquetInput,
    read_at: Callable[[int, int], bytes],
    group: int,
    names: Sequence[str],
    leaves: Sequence[int],
    settings: ReadSettings,
) -> int:
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


def _check_open(opened: ParquetInput, used: Sequence[str]) -> None:
    """Raise UnusableFile if a used column is encrypted: the first row group shows that."""
    group = next((i for i, rows in enumerate(opened.rows) if rows), None)
    if group is None or (why := opened.why_not(group, used)) is None or "crypt" not in why:
        return
    name = next((n for n in used if (found := opened.why_not(group, [n])) and "crypt" in found), None)
    message = f"column {name!r} is encrypted, which is not supported: write it without encryption, or do not use it"
    raise UnusableFile("unreadable", message, name)


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
        raise _Damage(f"it contains {rows} rows")
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


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, type_) for type_ in schema.types], schema=schema)
