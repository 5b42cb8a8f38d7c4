"""Part files: rows are collected, encoded, and written durably under unique names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import google_crc32c
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_score.transforms.arrays.sizes import batch_bytes
from beam_score.transforms.common.bounds import DEFAULT_BOUNDS, Bounds
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.write_behind import Write, nothing_to_wait_for, write_at_once
from beam_score.transforms.output.json_lines import json_pieces
from beam_score.transforms.output.part import Part
from beam_score.transforms.rows.as_json import pieces_of

MAX_GROUP_ROWS = 1 << 20

_DISTINCT_SAMPLE = 10_000

_ROWS_AT_ONCE = 1 << 14
"""Rows that are prepared for text together. The allocator keeps the memory of such pieces, some MB; that of larger ones
it gets from the system each time."""


class Parts:
    """The rows of one kind of one split, in one or several part files.

    Args:
      folder: where the parts are written.
      kind: `predictions` or `rejected`.
      stem: prefix of the names of the parts; unique to this attempt.
      encoder: see `ParquetEncoder` and `LinesEncoder`.
      write: how a part is written; each write is waited for before the next, so that memory stays bounded.
      bounds: `writer_bytes` of rows are encoded together; past `part_bytes` a further part is begun.

    Attributes:
      written: the parts so far.
      wait: waits until the last of them is durable.
    """

    def __init__(
        self,
        folder: storage.Place,
        kind: str,
        stem: str,
        encoder: ParquetEncoder | LinesEncoder,
        write: Write = write_at_once,
        bounds: Bounds = DEFAULT_BOUNDS,
    ):
        self._folder, self._kind, self._stem, self._encoder, self._write = folder, kind, stem, encoder, write
        self._bounds, self.wait = bounds, nothing_to_wait_for
        self._held: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = self._rows = 0
        self.written: list[Part] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows; write a part once there are enough for one."""
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch_bytes(batch)
        if self._held_rows >= MAX_GROUP_ROWS or self._held_bytes >= self._bounds.writer_bytes // self._encoder.expands:
            self._encode()

    def close(self) -> list[Part]:
        """Write the remaining rows, or start to. Return the parts, an empty list if there are no rows."""
        self._encode()
        if self._rows:
            self._end_part()
        return self.written

    def write_empty(self, schema: pa.Schema) -> Part:
        """Write a part without rows."""
        self._encoder.add(schema.empty_table())
        self._end_part()
        return self.written[-1]

    def _encode(self) -> None:
        if self._held:
            table = pa.Table.from_batches(self._held)
            self._held, self._rows = [], self._rows + self._held_rows
            self._held_rows = self._held_bytes = 0
            if self._encoder.add(table) >= self._bounds.part_bytes:
                self._end_part()

    def _end_part(self) -> None:
        pieces = self._encoder.end()
        name = f"{self._stem}-{len(self.written)}.{self._encoder.suffix}"
        self.wait()
        self.wait = self._write(self._folder / name, pieces)
        crc = 0
        for piece in pieces:
            crc = google_crc32c.extend(crc, piece)
        self.written.append(Part(name, self._kind, self._rows, sum(len(p) for p in pieces), f"{crc:08x}"))
        self._rows = 0


class ParquetEncoder:
    """Encodes a table as a row group; a file extends from one `end` to the next."""

    suffix = "parquet"
    expands = 1

    def __init__(self) -> None:
        self._writer: pq.ParquetWriter | None = None
        self._sink: pa.BufferOutputStream | None = None

    def add(self, table: pa.Table) -> int:
        """Encode rows; return the bytes of the file so far."""
        if self._writer is None:
            self._sink = pa.BufferOutputStream()
            self._writer = parquet_writer(self._sink, table)
        assert self._sink is not None  # made with the writer
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        return self._sink.tell()

    def end(self) -> Sequence[bytes | pa.Buffer]:
        """Return the whole file, in pieces."""
        assert self._writer is not None and self._sink is not None  # a file has at least one table
        self._writer.close()
        content = self._sink.getvalue()
        self._writer = self._sink = None
        return [content]


def parquet_writer(sink: pa.BufferOutputStream, sample: pa.Table) -> pq.ParquetWriter:
    """Return a writer with dictionaries only where values repeat: for floats and ids they cost a third of the time
    of a whole run, and save nothing (docs/benchmarks.md)."""
    return pq.ParquetWriter(
        sink,
        sample.schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=[f.name for f in sample.schema if _repeats(sample, f)],
        write_page_checksum=True,
        store_schema=True,
    )


def _repeats(table: pa.Table, field: pa.Field) -> bool:
    if pa.types.is_floating(field.type) or pa.types.is_nested(field.type) or not len(table):
        return False
    sample = table[field.name].slice(0, _DISTINCT_SAMPLE)
    return pc.count_distinct(sample).as_py() < len(sample) // 2


class LinesEncoder:
    """Encodes rows as JSON Lines.

    Args:
      to_pieces: encodes rows, in pieces of lines with their line ends.
    """

    suffix = "jsonl"
    expands = 8
    """Rows as text, and during the conversion, take several times their bytes; larger pieces are not faster."""

    def __init__(self, to_pieces: Callable[[pa.Table], Sequence[bytes | pa.Buffer]]):
        self._to_pieces = to_pieces
        self._pieces: list[bytes | pa.Buffer] = []

    def add(self, table: pa.Table) -> int:
        """Encode rows; return the bytes of the file so far."""
        for begin in range(0, len(table), _ROWS_AT_ONCE):
            self._pieces += self._to_pieces(table.slice(begin, _ROWS_AT_ONCE))
        return sum(map(len, self._pieces))

    def end(self) -> Sequence[bytes | pa.Buffer]:
        """Return the whole file, in pieces."""
        pieces, self._pieces = self._pieces, []
        return pieces


@dataclasses.dataclass(frozen=True)
class PredictionFormat:
    """How predictions are written.

    Attributes:
      format: `parquet` or `jsonl`.
      not_finite: for JSON Lines: `null` (with an additional column NAME_not_finite) or `string`.
    """

    format: str = "parquet"
    not_finite: str = "null"

    def encoder(self) -> ParquetEncoder | LinesEncoder:
        if self.format == "parquet":
            return ParquetEncoder()
        return LinesEncoder(lambda table: json_pieces(table, self.not_finite))


def dead_letter_encoder() -> LinesEncoder:
    """Return the encoder for the rows of `dead_letter_rows`."""
    return LinesEncoder(pieces_of)
