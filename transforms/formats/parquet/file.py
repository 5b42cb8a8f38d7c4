"""An open Parquet file: its schema and its footer, asked for in ways that cannot end the process.

`row_group(i).column(j)` of pyarrow (25) raises an exception that Python cannot catch, and aborts, for an encrypted
column and for some damaged footers; readers of the same column raise an OSError. So a reader is made first, of a
file without bytes, and the footer is asked for used columns alone.
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
from beam_score.transforms.formats.parquet import suspects
from beam_score.transforms.formats.parquet.pages import Pages, first_page, pages_of
from beam_score.transforms.model import in_hand
from beam_score.transforms.stores.compression import open_file
from beam_score.transforms.stores.local_file import calls, is_of_the_system, retried
from beam_score.transforms.stores.object_file import ObjectFile
from beam_score.transforms.stores.objects import is_object

READ_AHEAD_BYTES = 1 << 20
"""A column chunk is streamed through a buffer of this size, not loaded whole."""

DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
"""What pyarrow raises on damaged files; see `raise_unless_damage`."""


class ColumnChunk(NamedTuple):
    """What the footer says of one column of one row group.

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
        """What its pages hold, by their headers.

        Args:
          read: see `reading`.
          whole: whether to look at all headers; else at the first, and the footer is believed.

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
    """A Parquet file that is open.

    Attributes:
      path: where it is.
      file: pyarrow's.
      source: the object that it is, where it is one.
      schema: its Arrow schema. `ParquetFile.schema_arrow` builds it anew at every access.
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
        """Numbers of the leaf columns below some columns."""
        schema = self.metadata.schema
        return [i for i in range(self.metadata.num_columns) if is_used(schema.column(i).path, used)]

    def batches(self, group: int, rows: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """A row group, so many rows at a time."""
        found = self.file.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)
        while True:
            with in_hand.reading(self.path):
                batch = next(found, None)
            if batch is None:
                return
            yield batch

    def why_not(self, group: int, names: Sequence[str]) -> str | None:
        """Why some columns of a row group cannot be read, as far as the footer shows; None where they can."""
        if not names or not self.rows[group]:
            return None
        try:
            with in_hand.reading(self.path):
                next(self._empty.iter_batches(1, row_groups=[group], columns=names, use_threads=False), None)
        except _Asked:
            return None  # the readers are made, and asked for the first page
        except DAMAGE as error:
            raise_unless_damage(error)
            return first_line(error)
        return None

    def chunks(self, group: int, names: Sequence[str], leaves: Sequence[int]) -> list[ColumnChunk]:
        """What the footer says of some columns of a row group.

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
    """A Parquet file, open.

    Args:
      version: of an object (`transforms.stores.versions`).
      metadata: the footer, where it is known, or is to be another than the file's own.
      buffer_bytes: what each column is streamed through.

    Raises:
      UnusableFile: its footer is broken.
      OSError: the file cannot be read, which is not damage.
    """
    if (why := suspects.why_not(path, version)) is not None:
        raise UnusableFile("unreadable", why)
    with open_file(path, version) if is_object(path) else contextlib.nullcontext() as source:
        try:
            with in_hand.reading(path):
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
            with in_hand.reading(path):
                opened = ParquetInput(path, file, source)
            yield opened


@contextlib.contextmanager
def reading(opened: ParquetInput) -> Iterator:
    """A function that gives the bytes of an open file at a position: `(position, size) -> bytes`."""
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
    """The footer without the Arrow schema that pyarrow stored in it: lists of a fixed size are then
    plain lists. pyarrow cannot read such a list where one is null (apache/arrow#35692)."""
    footer = io.BytesIO()
    metadata.write_metadata_file(footer)
    return pq.read_metadata(io.BytesIO(footer.getvalue().replace(b"ARROW:schema", b"ARROW:unused")))


def raise_unless_damage(error: Exception) -> None:
    """Raises an error that is not the file's."""
    if is_of_the_system(error):
        raise error


def first_line(error: Exception) -> str:
    """What an error says, cut."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def is_used(path: str, used: Set[str]) -> bool:
    """Whether a leaf's dotted path is below a used column; names may hold dots themselves."""
    if path in used:
        return True
    parts = path.split(".")
    return any(".".join(parts[:n]) in used for n in range(1, len(parts)))


class _Asked(Exception):
    """A page was asked for."""


class _NoBytes(io.RawIOBase):
    """A file of which nothing can be read."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return offset if whence == io.SEEK_SET else 1 << 62

    def tell(self) -> int:
        return 1 << 62

    def read(self, size: int | None = -1) -> bytes:
        raise _Asked("a page was asked for")
