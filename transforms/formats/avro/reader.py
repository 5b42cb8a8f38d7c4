"""The Avro reader: blocks of rows to typed columns.

Avro stores rows one after the other and has no checksum but that of snappy, so damage that still decodes is not found.
Damage that does not decode costs its block if the next block can be found, else the rest of the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.avro.container import (
    MAGIC,
    Block,
    Damage,
    Header,
    blocks,
    decompressed,
    read_header,
)
from beam_score.transforms.formats.avro.schema import Columns, Unsupported, columns_of
from beam_score.transforms.formats.base import Chunk, Format, ReadSettings, UnusableFile, empty_rows
from beam_score.transforms.formats.first_rows import FirstRows, Hints
from beam_score.transforms.formats.typed import suspects
from beam_score.transforms.formats.typed.columns import (
    chunk_of,
    first_line,
    kept_types,
    python_rows,
    rows_at_once,
    used_columns,
)
from beam_score.transforms.model import in_flight
from beam_score.transforms.rows.faults import stretch
from beam_score.transforms.stores.byte_file import ByteFile
from beam_score.transforms.stores.compression import open_file
from beam_score.transforms.stores.local_file import is_of_the_system
from beam_score.transforms.stores.object_file import ObjectFile

_SYNC = b"0123456789abcdef"  # of the file that is handed to the decoder


class Avro(Format):
    """Avro object container files."""

    name, title = "avro", "Avro"
    suffixes = (".avro",)
    magic = re.compile(re.escape(MAGIC))

    def check(self, path: str, settings: ReadSettings, version: str | None = None) -> None:
        with opened(path, version) as file:
            file.used(settings)

    def columns_of(
        self, path: str, settings: ReadSettings, version: str | None = None
    ) -> dict[str, pa.DataType] | None:
        with opened(path, version) as file:
            return kept_types(file.columns.schema, settings)

    def cut(
        self, path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None
    ) -> list[FileRange]:
        if size <= split_bytes * 1.5:
            return [FileRange(path, size, bytes=size)]
        borders, target, row = [(0, 0)], split_bytes, 0
        with contextlib.suppress(UnusableFile, Damage), opened(path, version) as file:  # the reader reports them
            for block in file.blocks(file.header.size, -1, passing_over=True):
                if block.start >= target and size - block.start > split_bytes / 2:
                    borders.append((block.start, row))
                    target = block.start + split_bytes
                row += block.rows
        ends = [start for start, _ in borders[1:]]
        return [
            FileRange(path, size, start, end, row, index, (size if end < 0 else end) - start)
            for index, ((start, row), end) in enumerate(zip(borders, [*ends, -1], strict=True))
        ]

    def read(self, range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
        with opened(range_.path, range_.version) as file:
            names = file.used(settings)
            row = range_.first_row
            for found in file.batches(range_.start, range_.end, names, settings.max_block_bytes):
                if isinstance(found, _Lost):
                    if found.rows == 0:
                        continue
                    yield Chunk(empty_rows(settings), stretch(row, found.rows, "unreadable", found.message))
                    row += found.rows or 0
                    continue
                step = rows_at_once(found, settings)
                for start in range(0, found.num_rows, step):
                    yield chunk_of(found.slice(start, step), row + start, settings)
                row += found.num_rows

    def first_rows(self, path: str, count: int, hints: Hints) -> FirstRows:
        with opened(path, None) as file:
            names = list(dict.fromkeys(n for n in file.columns.schema.names if file.refused(n) is None))
            found: list[pa.RecordBatch] = []
            for batch in file.batches(0, -1, names, 1 << 20):
                if isinstance(batch, pa.RecordBatch):
                    found.append(batch)
                elif not found:
                    raise UnusableFile("unreadable", batch.message)
                if sum(b.num_rows for b in found) >= count:
                    break
            return FirstRows(python_rows(found, count), tuple(names))


FORMAT = Avro()


@dataclasses.dataclass(frozen=True)
class _Lost:
    """Rows that cannot be read: how many, or None for the rest of the file; and why."""

    rows: int | None
    message: str


class AvroFile:
    """An open file."""

    def __init__(self, path: str, file: ByteFile):
        self._path, self._file = path, file
        self.header: Header = read_header(file)
        try:
            self.columns: Columns = columns_of(self.header.schema)
        except Unsupported as error:
            raise UnusableFile("wrong_type", str(error)) from None

    def refused(self, name: str) -> str | None:
        """Return why a column cannot be used; None if it can."""
        return self.columns.values[self.columns.schema.names.index(name)].refused

    def used(self, settings: ReadSettings) -> list[str]:
        """Return the names of the used columns. Raises UnusableFile."""
        there = self.columns.schema.names
        wanted = there if settings.keep is None else (*settings.contract_columns, *settings.kept_undeclared)
        for name in wanted:
            if name in there and (why := self.refused(name)) is not None:
                raise UnusableFile("wrong_type", f"column {name!r} {why}", name)
        return used_columns(self.columns.schema, settings)

    def blocks(self, start: int, end: int, passing_over: bool = False) -> Iterator[Block]:
        if isinstance(self._file, ObjectFile):
            self._file.stream(start, self._file.size if end < 0 else end)
        return blocks(self._file, self.header, max(start, self.header.size), end, passing_over)

    def batches(self, start: int, end: int, names: Sequence[str], batch_bytes: int) -> Iterator[pa.RecordBatch | _Lost]:
        """Yield the rows of a part of the file, some blocks together, and what cannot be read, in order."""
        held: list[tuple[int, bytes]] = []
        size = 0
        found = self.blocks(start, end)
        while True:
            lost = None
            try:
                block = next(found, None)
                if block is None:
                    break
                try:
                    held.append((block.rows, decompressed(block, self.header.codec)))
                    size += len(held[-1][1])
                except Damage as damage:
                    lost = _Lost(block.rows, f"a block of {block.rows} rows is damaged: {damage}")
            except Damage as damage:
                yield from self._decoded(held, names)
                yield _Lost(None, f"the file is damaged from here on: {damage}")
                return
            if lost is not None or size >= batch_bytes:
                yield from self._decoded(held, names)
                held, size = [], 0
            if lost is not None:
                yield lost
        yield from self._decoded(held, names)

    def _decoded(self, held: list[tuple[int, bytes]], names: Sequence[str]) -> Iterator[pa.RecordBatch | _Lost]:
        """Yield the rows of some blocks; if they cannot be decoded together, of each on its own."""
        if not held:
            return
        try:
            yield self._decode(held, names)
        except _undecoded() as error:
            if isinstance(error, Exception) and is_of_the_system(error):
                raise
            if len(held) > 1:
                for block in held:
                    yield from self._decoded([block], names)
                return
            rows = held[0][0]
            yield _Lost(rows, f"a block of {rows} rows is damaged: {first_line(error)}")

    def _decode(self, held: list[tuple[int, bytes]], names: Sequence[str]) -> pa.RecordBatch:
        import polars as pl

        rows = sum(count for count, _ in held)
        content = [self._head]
        for count, data in held:
            content += [_number(count), _number(len(data)), data, _SYNC]
        schema, index = self.columns.schema, [self.columns.schema.names.index(name) for name in names]
        wired = {i: f"c{i}" for i in index if self.columns.values[i].wire is not None}
        # Without a used column one is decoded all the same: the rows must be there.
        wanted = list(wired.values()) or [self._narrowest]
        with in_flight.reading(self._path):
            frame = pl.read_avro(io.BytesIO(b"".join(content)), columns=wanted)
        if frame.height != rows:
            raise ValueError(f"it has {frame.height} rows")
        table = frame.to_arrow()
        arrays = []
        for i in index:
            values = self.columns.values[i]
            if i in wired:
                column = table[wired[i]]
                whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
                arrays.append(values.convert(whole))
            else:
                arrays.append(pa.nulls(rows))
        if not names:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([schema.field(i) for i in index]))

    @functools.cached_property
    def _head(self) -> bytes:
        """The header of the file that is handed to the decoder."""
        schema = json.dumps(self.columns.wire()).encode()
        found = [MAGIC, _number(2)]
        for text in (b"avro.schema", schema, b"avro.codec", b"null"):
            found += [_number(len(text)), text]
        return b"".join([*found, _number(0), _SYNC])

    @functools.cached_property
    def _narrowest(self) -> str:
        return next(f"c{i}" for i, values in enumerate(self.columns.values) if values.wire is not None)


def _undecoded() -> tuple[type[BaseException], ...]:
    """Return what polars raises for bytes that are not of the schema, and Arrow for values that are not of the type."""
    from polars.exceptions import PanicException, PolarsError

    return PolarsError, PanicException, pa.ArrowException, OSError, ValueError, IndexError


def _number(value: int) -> bytes:
    """Return an integer in zigzag coding."""
    value <<= 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


@contextlib.contextmanager
def opened(path: str, version: str | None) -> Iterator[AvroFile]:
    if (why := suspects.why_not(FORMAT.name, path, version)) is not None:
        raise UnusableFile("unreadable", why)
    with open_file(path, version) as file:
        yield AvroFile(path, file)
