"""An open Parquet file: its schema and its footer, accessed without calls that can abort the process.

`row_group(i).column(j)` of pyarrow (25) raises an exception that Python cannot catch, and aborts, for an encrypted
column and for some damaged footers; readers of the same column raise an OSError. So a reader is created first, for a
file without bytes, and the footer is read for used columns only.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator, Sequence, Set
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from beam_score.transforms.formats.base import UnusableFile
from beam_score.transforms.formats.parquet.pages import Pages, first_page, pages_of
from beam_score.transforms.formats.typed import suspects
from beam_score.transforms.formats.typed.columns import first_line
from beam_score.transforms.model import in_flight
from beam_score.transforms.stores.local_file import calls, is_of_the_system, retried
from beam_score.transforms.stores.object_file import ObjectFile
from beam_score.transforms.stores.objects import is_object

READ_AHEAD_BYTES = 1 << 20
"""A column chunk is streamed through a buffer of this size, not loaded whole."""

DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""Exceptions that pyarrow raises on damaged files; see `raise_unless_damage`."""


class ColumnChunk(NamedTuple):
    """The footer's entry for one column of one row group.

    Attributes:
      leaf: number of the column.
      start, end: where its pages are in the file.
      stored, decoded: bytes of its pages, with and without compression.
      values: nulls included.
      has_dictionary: whether it has a dictionary.
    """

    leaf: int
    start: int
    end: int
    stored: int
    decoded: int
    values: int
    has_dictionary: bool

    def pages(self, read: Callable[[int, int], bytes], whole: bool) -> Pages:
        """Return the content of its pages, by their headers.

        Args:
          read: see `reading`.
          whole: whether to read all headers; else only the first, and the footer is trusted.

        Raises:
          BadPage: the headers contradict the footer.
          OSError: the file cannot be read.
        """
        if whole:
            return pages_of(read, self.start, self.end, self.decoded, self.values)
        if self.values:
            first_page(read, self.start, self.end, self.decoded)
        dictionary = self.decoded if self.has_dictionary else 0
        return Pages(self.values, self.decoded, 0, dictionary, 0, self.has_dictionary)


class ParquetInput:
    """An open Parquet file.

    Attributes:
      path: its path.
      file: pyarrow's.
      source: the object, if the file is one.
      schema: its Arrow schema. `ParquetFile.schema_arrow` rebuilds it at every access.
      rows: of each row group.
    """

    def __init__(self, path: str, file: pq.ParquetFile, source: ObjectFile | None):
        self.path, self.file, self.source = path, file, source
        self.metadata = file.metadata
        try:
            self.schema = file.schema_arrow
        except DAMAGE as error:
            raise_unless_damage(error)
            raise UnusableFile("unreadable", f"its schema cannot be read: {first_line(error)}") from error
        self.rows = [self.metadata.row_group(i).num_rows for i in range(self.metadata.num_row_groups)]
        if any(n < 0 for n in self.rows) or sum(self.rows) != self.metadata.num_rows:
            raise UnusableFile("unreadable", "its footer is damaged: the row counts contradict each other")

    @functools.cached_property
    def _empty(self) -> pq.ParquetFile:
        """The same footer over a file without bytes."""
        nothing = pa.PythonFile(_NoBytes(), "r")
        return pq.ParquetFile(nothing, metadata=self.metadata, pre_buffer=False, buffer_size=READ_AHEAD_BYTES)

    def leaves(self, used: Set[str]) -> list[int]:
        """Return the numbers of the leaf columns below some columns."""
        schema = self.metadata.schema
        return [i for i in range(self.metadata.num_columns) if is_used(schema.column(i).path, used)]

    def batches(self, group: int, rows: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield a row group in batches of `rows` rows."""
        found = self.file.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)
        while True:
            with in_flight.reading(self.path):
                batch = next(found, None)
            if batch is None:
                return
            yield batch

    def why_not(self, group: int, names: Sequence[str]) -> str | None:
        """Return why some columns of a row group cannot be read, as far as the footer shows; None if they can."""
        if not names or not self.rows[group]:
            return None
        try:
            with in_flight.reading(self.path):
                next(self._empty.iter_batches(1, row_groups=[group], columns=names, use_threads=False), None)
        except _Asked:
            return None  # the readers were created, and requested the first page
        except DAMAGE as error:
            raise_unless_damage(error)
            return first_line(error)
        return None

    def chunks(self, group: int, names: Sequence[str], leaves: Sequence[int]) -> list[ColumnChunk]:
        """Return the footer's entries for some columns of a row group.

        Args:
          names: of the columns.
          leaves: their numbers; see `leaves`.

        Raises:
          ValueError: the footer is damaged, or a column is encrypted.
        """
        if (why := self.why_not(group, names)) is not None:
            raise ValueError(why)
        if not self.rows[group]:
            return []
        metadata, found = self.metadata.row_group(group), []
        for leaf in leaves:
            chunk = metadata.column(leaf)
            start, has_dictionary = chunk.data_page_offset, bool(chunk.has_dictionary_page)
            if has_dictionary and chunk.dictionary_page_offset:
                start = min(start, chunk.dictionary_page_offset)
            stored, decoded, values = chunk.total_compressed_size, chunk.total_uncompressed_size, chunk.num_values
            if min(start, stored, decoded, values) < 0:
                raise ValueError("its footer is damaged: a size below zero")
            found.append(ColumnChunk(leaf, start, start + stored, stored, decoded, values, has_dictionary))
        return found


@contextlib.contextmanager
def open_parquet(
    path: str, version: str | None, metadata: pq.FileMetaData | None = None, buffer_bytes: int = READ_AHEAD_BYTES
) -> Iterator[ParquetInput]:
    """Open a Parquet file.

    Args:
      version: of an object (`transforms.stores.versions`).
      metadata: the footer, if it is known, or is to replace the file's own.
      buffer_bytes: size of the buffer that each column is streamed through.

    Raises:
      UnusableFile: its footer is broken.
      OSError: the file cannot be read, which is not damage.
    """
    if (why := suspects.why_not("parquet", path, version)) is not None:
        raise UnusableFile("unreadable", why)
    with ObjectFile(path, version) if is_object(path) else contextlib.nullcontext() as source:
        try:
            with in_flight.reading(path):
                file = retried(
                    path,
                    lambda: pq.ParquetFile(
                        path if source is None else source,
                        metadata=metadata,
                        page_checksum_verification=True,
                        pre_buffer=False,
                        buffer_size=buffer_bytes,
                    ),
                )
        except DAMAGE as error:
            raise_unless_damage(error)
            raise UnusableFile("unreadable", f"not a whole Parquet file: {first_line(error)}") from error
        with file:
            with in_flight.reading(path):
                opened = ParquetInput(path, file, source)
            yield opened


@contextlib.contextmanager
def reading(opened: ParquetInput) -> Iterator[Callable[[int, int], bytes]]:
    """Yield a function that returns the bytes of an open file at a position: `(position, size) -> bytes`."""
    source = opened.source
    if source is not None:

        def read(at: int, size: int) -> bytes:
            source.seek(at)
            return source.read(size)

        yield read
        return
    descriptor = calls().open(opened.path)
    try:
        yield lambda at, size: calls().read_at(descriptor, size, at)
    finally:
        calls().close(descriptor)


def without_arrow_types(metadata: pq.FileMetaData) -> pq.FileMetaData:
    """Return the footer without the Arrow schema that pyarrow stored in it: lists of a fixed size are then plain
    lists. pyarrow cannot read such a list where one is null (apache/arrow#35692)."""
    footer = io.BytesIO()
    metadata.write_metadata_file(footer)
    return pq.read_metadata(io.BytesIO(footer.getvalue().replace(b"ARROW:schema", b"ARROW:unused")))


def raise_unless_damage(error: Exception) -> None:
    """Raise an error that is not caused by the file's content."""
    if is_of_the_system(error):
        raise error


def is_used(path: str, used: Set[str]) -> bool:
    """Return whether a leaf's dotted path is below a used column; names may contain dots themselves."""
    if path in used:
        return True
    parts = path.split(".")
    return any(".".join(parts[:n]) in used for n in range(1, len(parts)))


class _Asked(Exception):
    """A page was requested."""


class _NoBytes(io.RawIOBase):
    """A file from which nothing can be read."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return offset if whence == io.SEEK_SET else 1 << 62

    def tell(self) -> int:
        return 1 << 62

    def read(self, size: int | None = -1) -> bytes:
        raise _Asked("a page was requested")
