"""Combination of many small files in few blocks: a step costs some 0.1 ms a block, however few rows the block has,
which adds up for ten thousand files of ten rows each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.sizes import own_bytes
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.origin import Origin, join_origins
from beam_score.transforms.rows.sources import Files, Source

if TYPE_CHECKING:
    from beam_score.transforms.formats.base import Chunk, ReadSettings

_PART = 4
"""A file is small if this many of its size fit into a block."""

_MOST_FILES = 256
"""Maximum files in a block: their chunks are in memory until then, and a chunk of few rows takes some 10 kB."""


class Together:
    """Joins the chunks of small files that are read one after the other.

    Only plain files are joined: a whole file in one chunk, without rejected rows, with the same columns as the one
    before. Everything else passes unchanged.
    """

    def __init__(self, settings: ReadSettings):
        self._most_rows, self._most_bytes = settings.max_block_rows, settings.max_block_bytes
        self._held: list[tuple[str, Chunk]] = []
        self._rows = self._bytes = 0

    def of(self, path: str, chunks: Iterator[Chunk]) -> Iterator[tuple[Source, Chunk]]:
        """Take the chunks of the next file, or of a part of it; yield the chunks that are ready, in their original
        order."""
        first = next(chunks, None)
        if first is None:
            return
        small = self._is_small(first)
        second = next(chunks, None) if small else None
        if small and second is None:
            if self._held and not self._goes_with(first):
                yield from self.rest()
            self._held.append((path, first))
            self._rows += first.rows.num_rows
            self._bytes += _bytes(first)
            return
        yield from self.rest()
        yield first.source or path, first
        if second is not None:
            yield second.source or path, second
        for chunk in chunks:
            yield chunk.source or path, chunk

    def rest(self) -> Iterator[tuple[Source, Chunk]]:
        """Yield the remaining chunks."""
        held, self._held, self._rows, self._bytes = self._held, [], 0, 0
        if len(held) > 1:
            yield _joined(held)
        else:
            yield from held

    def _is_small(self, chunk: Chunk) -> bool:
        rows, origin = chunk.rows, chunk.origin
        return (
            0 < rows.num_rows * _PART <= self._most_rows
            and _bytes(chunk) * _PART <= self._most_bytes
            and not chunk.rejected.num_rows
            and chunk.source is None
            and rows[ROW][0].as_py() == 0
            and (origin is None or origin.numbers is None)
        )

    def _goes_with(self, chunk: Chunk) -> bool:
        before = self._held[-1][1]
        return (
            len(self._held) < _MOST_FILES
            and self._rows + chunk.rows.num_rows <= self._most_rows
            and self._bytes + _bytes(chunk) <= self._most_bytes
            and chunk.rows.schema == before.rows.schema
            and _kind(chunk.origin) == _kind(before.origin)
        )


def _bytes(chunk: Chunk) -> int:
    """Return the bytes of memory of a chunk: for wide files with few used columns, mostly the bytes they were parsed
    from."""
    data = None if chunk.origin is None else chunk.origin.data
    return max(own_bytes(chunk.rows), 0 if data is None else data.size if isinstance(data, pa.Buffer) else data.nbytes)


def _kind(origin: Origin | None) -> tuple[Any, ...] | None:
    """Return the properties that must be equal for origins to be joined."""
    if origin is None:
        return None
    schema = origin.data.schema if isinstance(origin.data, pa.RecordBatch) else None
    return origin.framing, origin.dialect, schema


def _joined(held: list[tuple[str, Chunk]]) -> tuple[Source, Chunk]:
    chunks = [chunk for _, chunk in held]
    rows = pa.concat_batches([chunk.rows for chunk in chunks])
    rows = rows.set_column(rows.schema.get_field_index(ROW), ROW, pa.array(np.arange(rows.num_rows)))
    files = Files(tuple(path for path, _ in held), tuple(chunk.rows.num_rows for chunk in chunks))
    return files, dataclasses.replace(chunks[0], rows=rows, origin=join_origins([chunk.origin for chunk in chunks]))
