"""Parquet: row groups to typed columns, page checksums verified.

Only the columns that are used are read. A row group is read to its end before its first row is
given out, so that a damaged one costs exactly itself, however the rows fall into blocks.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.block import FAULTS, NO_REJECTED, ROW, Fault, stretch
from transforms.compression import SMALL_BYTES, open_file
from transforms.contract import Column
from transforms.convert import carry, convert, faults_column, fits
from transforms.local_files import is_of_the_system, retried
from transforms.names import near_miss
from transforms.object_reads import ObjectFile
from transforms.objects import is_object
from transforms.parquet_spans import GroupsAhead, column_chunks
from transforms.payload import Origin
from transforms.read import Chunk, ReadSettings, UnusableFile
from transforms.single_values import plain_type
from transforms.splits import FileRange

_HELD_BYTES = 64 << 20
"""Decoded bytes of a row group that are held until it proved sound; a larger one is read twice."""

_READ_AHEAD_BYTES = 1 << 20
"""A column chunk is streamed through a buffer of this size, not loaded whole."""

_DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""What pyarrow raises on damaged files; see `_raise_unless_damage`."""


def check(path: str, settings: ReadSettings, version: str | None = None) -> None:
    """Raises UnusableFile where the footer shows that no row of the file can be used."""
    with _open(path, version) as (file, _):
        _used_columns(file, settings)


def columns_of(path: str, settings: ReadSettings, version: str | None = None) -> dict[str, pa.DataType]:
    """The columns of a file with the types that they are kept with. Raises UnusableFile."""
    with _open(path, version) as (file, _):
        return {field.name: plain_type(field.type) for field in file.schema_arrow}


def cut(path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None) -> list[FileRange]:
    """Ranges of whole row groups, of about `split_bytes` of the used columns each."""
    if size <= min(SMALL_BYTES, split_bytes):
        return [FileRange(path, size, bytes=size)]
    try:
        with _open(path, version) as (file, _):
            used = set(_used_columns(file, settings))
            counts, sizes = _groups(file, used)
    except UnusableFile:
        return [FileRange(path, size, bytes=size)]  # reading it tells what is wrong
    ranges, start, first_row = [], 0, 0
    for end in range(1, len(sizes) + 1):
        # A range ends where the next group would bring it further from the target than it is.
        taken = sum(sizes[start:end])
        if end == len(sizes) or taken + sizes[end] / 2 > split_bytes:
            ranges.append(FileRange(path, size, start, end, first_row, len(ranges), taken))
            first_row += sum(counts[start:end])
            start = end
    return ranges or [FileRange(path, size)]


def read(range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
    """The rows of some row groups (`start` to `end`); see `transforms.read`.

    Raises:
      UnusableFile: as `check`.
      OSError: the file cannot be read, which is not damage.
    """
    with contextlib.ExitStack() as stack:
        file, source = stack.enter_context(_open(range_.path, range_.version))
        names = _used_columns(file, settings)
        counts, _ = _groups(file, set(names))
        schema = pa.schema([_without_view(file.schema_arrow.field(name)) for name in names])
        if any("fixed_size_list" in str(type_) for type_ in schema.types):
            file, source = stack.enter_context(_open(range_.path, range_.version, _without_arrow_types(file.metadata)))
        groups = range(range_.start, len(counts) if range_.end < 0 else range_.end)
        ahead = None if source is None else _ahead(file, source, groups, set(names))
        row = range_.first_row
        for group in groups:
            if ahead is not None:
                ahead.turn_of(group - range_.start)
            try:
                for batch in _sound_batches(file, group, counts[group], schema, settings):
                    yield _chunk(batch, row, settings)
                    row += batch.num_rows
            except _Damage as error:
                message = f"row group {group} of {counts[group]} rows is damaged: {error}"
                letter = stretch(row, counts[group], "unreadable", message)
                yield Chunk(_chunk(_no_rows(schema), row, settings).rows, letter)
                row += counts[group]


class _Damage(Exception):
    pass


def _ahead(file: pq.ParquetFile, source: ObjectFile, groups: Sequence[int], used: set[str]) -> GroupsAhead:
    metadata = file.metadata
    columns = [i for i in range(metadata.num_columns) if _is_used(metadata.schema.column(i).path, used)]
    return GroupsAhead(source, [column_chunks(metadata, group, columns, source.size) for group in groups])


@contextlib.contextmanager
def _open(
    path: str, version: str | None, metadata: pq.FileMetaData | None = None
) -> Iterator[tuple[pq.ParquetFile, ObjectFile | None]]:
    """A Parquet file, and the object that it is, where it is one; raises UnusableFile for a broken footer."""
    with open_file(path, version) if is_object(path) else contextlib.nullcontext() as source:
        try:
            file = retried(
                path,
                lambda: pq.ParquetFile(
                    path if source is None else source,
                    metadata=metadata,
                    page_checksum_verification=True,
                    pre_buffer=False,
                    buffer_size=_READ_AHEAD_BYTES,
                ),
            )
        except _DAMAGE as error:
            _raise_unless_damage(error)
            raise UnusableFile("unreadable", f"not a whole Parquet file: {_first_line(error)}") from error
        with file:
            yield file, source


def _without_arrow_types(metadata: pq.FileMetaData) -> pq.FileMetaData:
    """The footer without the Arrow schema that pyarrow stored in it: lists of a fixed size are then
    plain lists. pyarrow cannot read such a list where one is null (apache/arrow#35692)."""
    footer = io.BytesIO()
    metadata.write_metadata_file(footer)
    return pq.read_metadata(io.BytesIO(footer.getvalue().replace(b"ARROW:schema", b"ARROW:unused")))


def _without_view(field: pa.Field) -> pa.Field:
    """pyarrow (25) cannot take some rows of an array of views, as the payloads of refused rows are."""
    return field.with_type(
        {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(field.type, field.type)
    )


def _raise_unless_damage(error: Exception) -> None:
    if is_of_the_system(error):
        raise error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _used_columns(file: pq.ParquetFile, settings: ReadSettings) -> list[str]:
    """Names of the contract's columns that the file has, then of the kept ones.

    Raises:
      UnusableFile: see docs/contract.md.
    """
    try:
        schema = file.schema_arrow
    except _DAMAGE as error:
        _raise_unless_damage(error)
        raise UnusableFile("unreadable", f"its schema cannot be read: {_first_line(error)}") from error
    names, contract = schema.names, settings.contract_columns
    kept = settings.kept_undeclared
    if settings.keep is None:
        kept = tuple(dict.fromkeys(n for n in names if n not in contract))
    used = []
    for name in (*contract, *kept):
        column = contract.get(name)
        if (times := names.count(name)) > 1:
            raise UnusableFile("duplicate_key", f"column {name!r} is there {times} times", name)
        if not times and (column is None or column.required):
            message = f"column {name!r} is not there{near_miss(name, names)}"
            raise UnusableFile("missing_column", message, name)
        if times and column is not None:
            _check_type(name, column, schema.field(name).type)
        elif (
            times
            and not pa.types.is_null(found := plain_type(schema.field(name).type))
            and found != settings.kept_types.get(name, found)
        ):
            message = (
                f"the kept column {name!r} is {found}, and {settings.kept_types[name]} in the first file: "
                "declare it, or do not keep it"
            )
            raise UnusableFile("wrong_type", message, name)
        if times:
            used.append(name)
    extra = [n for n in names if n not in contract and n not in kept]
    if extra and settings.extra == "reject":
        message = f"column {extra[0]!r} is not in the contract{near_miss(extra[0], contract)}"
        raise UnusableFile("not_allowed", message, extra[0])
    return used


def _check_type(name: str, column: Column, type_: pa.DataType) -> None:
    if not fits(type_, column):
        message = f"column {name!r} is {type_}, expected {column.describe()}"
        raise UnusableFile("wrong_type", message, name)


def _groups(file: pq.ParquetFile, used: set[str]) -> tuple[list[int], list[int]]:
    """Rows of each row group, and the compressed bytes of its used columns."""
    counts, sizes = [], []
    try:
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            chunks = [group.column(i) for i in range(group.num_columns)]
            counts.append(group.num_rows)
            sizes.append(sum(c.total_compressed_size for c in chunks if _is_used(c.path_in_schema, used)))
    except _DAMAGE as error:
        _raise_unless_damage(error)
        raise UnusableFile("unreadable", f"its footer is damaged: {_first_line(error)}") from error
    if any(n < 0 for n in counts + sizes) or sum(counts) != file.metadata.num_rows:
        raise UnusableFile("unreadable", "its footer is damaged: the row counts contradict each other")
    return counts, sizes


def _is_used(path: str, used: set[str]) -> bool:
    """Whether a leaf's dotted path is below a used column; names may hold dots themselves."""
    parts = path.split(".")
    return any(".".join(parts[:n]) in used for n in range(1, len(parts) + 1))


def _sound_batches(file, group: int, count: int, schema: pa.Schema, settings) -> Iterator[pa.RecordBatch]:
    """The batches of a row group, none before all could be read.

    Raises:
      _Damage: before the first batch.
    """
    held: list[pa.RecordBatch] = []
    size = rows = 0
    for batch in _batches(file, group, schema, settings):
        rows += batch.num_rows
        size += batch.nbytes
        if size <= _HELD_BYTES:
            held.append(batch)
        else:
            held.clear()
    if rows != count:
        raise _Damage(f"it holds {rows} rows")
    if size > _HELD_BYTES:
        yield from _batches(file, group, schema, settings)
    while held:
        yield held.pop(0)


def _batches(file, group: int, schema: pa.Schema, settings) -> Iterator[pa.RecordBatch]:
    try:
        metadata = file.metadata.row_group(group)
        a_row = max(1, metadata.total_byte_size // max(1, metadata.num_rows))
        at_once = max(1, min(settings.max_block_rows, settings.max_block_bytes // a_row))
        batches = file.iter_batches(at_once, row_groups=[group], columns=schema.names, use_threads=False)
        for batch in batches:
            batch = batch.select(schema.names)  # a name with dots may have brought others along
            if batch.schema.types != schema.types:
                batch = batch.cast(schema)
            pieces = -(-batch.nbytes // max(1, 2 * settings.max_block_bytes))
            step = max(1, -(-batch.num_rows // max(1, pieces)))
            for start in range(0, batch.num_rows, step):
                yield batch.slice(start, step)
    except _DAMAGE as error:
        _raise_unless_damage(error)
        raise _Damage(_first_line(error)) from error


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
