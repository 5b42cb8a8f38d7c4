"""The number of rows of a Parquet row group to decode at once: by their decoded size, not their bytes in the file.

A dictionary of one long text, or a run of equal list elements, takes a few bytes in the file and gigabytes decoded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_score.transforms.formats.parquet.file import (
    DAMAGE,
    READ_AHEAD_BYTES,
    ColumnChunk,
    ParquetInput,
    raise_unless_damage,
)
from beam_score.transforms.formats.parquet.pages import Pages

_FEW_ROWS, _FEW_BATCHES = 512, 200
"""With fewer rows at once, or more batches, the dictionaries are read for their longest text instead."""

MOST_BYTES = 1 << 30
"""A page, or the lists of a column in one row group, that decodes to more is refused: no smaller unit can be read."""

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 8, "BYTE_ARRAY": 4}
_LEVELS = 4  # bytes of a value's definition and repetition level, in a column of lists
_RATIO = 100  # lists that decode to this much more than their pages are runs of equal elements


class TooLarge(Exception):
    """No part of the row group that can be read alone is small enough."""


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """Bytes of a row of one column: `mean`, and `worst` with the longest texts."""

    path: str
    mean: float
    worst: float
    values_a_row: float


def rows_at_once(
    opened: ParquetInput,
    group: int,
    chunks: Sequence[tuple[ColumnChunk, Pages]],
    most_rows: int,
    mean_bytes: int,
    worst_bytes: int,
) -> int:
    """Return the number of rows to decode at once.

    Args:
      chunks: of the columns that are read.
      most_rows: the maximum number of rows.
      mean_bytes: their approximate target size, by the mean over the row group.
      worst_bytes: their maximum size, if each has the longest text of each dictionary.

    Raises:
      TooLarge: there is no such number.
    """
    rows = opened.rows[group]
    leaves = [_leaf(opened, chunk, pages, rows, mean_bytes) for chunk, pages in chunks]
    count = int(max(1, min(most_rows, rows, mean_bytes // max(1, sum(leaf.mean for leaf in leaves)))))
    most = int(worst_bytes // max(1, sum(leaf.worst for leaf in leaves)))
    if most >= count or (most >= _FEW_ROWS and rows <= _FEW_BATCHES * most):
        return min(count, most)
    texts = [leaf for leaf in leaves if leaf.worst > leaf.mean]
    longest = _longest_texts(opened, group, [leaf.path for leaf in texts])
    worst = sum(min(leaf.worst, leaf.mean + leaf.values_a_row * longest.get(leaf.path, leaf.worst)) for leaf in leaves)
    return max(1, min(count, int(worst_bytes // max(1, worst))))


def _leaf(opened: ParquetInput, chunk: ColumnChunk, pages: Pages, rows: int, mean_bytes: int) -> _Leaf:
    column = opened.metadata.schema.column(chunk.leaf)
    is_list, is_text = column.max_repetition_level > 0, column.physical_type == "BYTE_ARRAY"
    width = max(0, column.length) if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS[column.physical_type]
    fixed = pages.values * (width + (_LEVELS if is_list else 0))
    if pages.largest > MOST_BYTES:
        raise TooLarge(f"column {column.path!r} has a page of {pages.largest:,} bytes, more than {MOST_BYTES:,}")
    if is_list and fixed > MOST_BYTES and fixed > _RATIO * chunk.decoded and fixed / rows > mean_bytes:
        raise TooLarge(f"column {column.path!r} decodes to {fixed:,} bytes of lists at once, more than {MOST_BYTES:,}")
    mean = worst = fixed / rows
    if is_text:
        texts = pages.plain + pages.dictionary / max(1, pages.entries) * pages.values * pages.by_dictionary
        mean += min(texts, pages.plain + pages.values * pages.dictionary) / rows
        # Each entry of a dictionary takes four bytes more than its text.
        texts_bytes = pages.dictionary - 4 * pages.entries - _least_bytes(pages.entries)
        longest = max(0, texts_bytes) if pages.by_dictionary else 0
        worst = mean + longest * pages.values / rows
    return _Leaf(column.path, mean, worst, pages.values / rows)


def _least_bytes(count: int) -> int:
    """Return the minimum total bytes of so many distinct texts, without the longest."""
    total = length = 0
    left = count - 1
    while left > 0:
        some = min(left, 256**length)
        total, left, length = total + some * length, left - some, length + 1
    return total


def _longest_texts(opened: ParquetInput, group: int, paths: Sequence[str]) -> Mapping[str, int]:
    """Return the bytes of the longest text in the dictionary of each column, where they can be determined."""
    try:
        file = pq.ParquetFile(
            opened.path if opened.source is None else opened.source,
            metadata=opened.metadata,
            read_dictionary=list(paths),
            pre_buffer=False,
            buffer_size=READ_AHEAD_BYTES,
            page_checksum_verification=True,
        )
        with file:
            batch = next(file.iter_batches(1, row_groups=[group], columns=list(paths), use_threads=False), None)
    except DAMAGE as error:
        raise_unless_damage(error)
        return {}  # reading it will report the error
    if batch is None or len(set(batch.schema.names)) < batch.num_columns:  # nothing, or two columns of a name
        return {}
    found: dict[str, int] = {}
    names = set(batch.schema.names)
    for path in paths:
        parts = path.split(".")
        name = next((n for i in range(len(parts), 0, -1) if (n := ".".join(parts[:i])) in names), None)
        if name is None:
            continue
        array = batch[name]
        while pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            array = array.values
        if pa.types.is_dictionary(array.type):
            texts = array.dictionary
            found[path] = (pc.max(pc.binary_length(texts)).as_py() or 0) if len(texts) else 0
    return found
