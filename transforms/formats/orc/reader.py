"""The ORC reader: stripes to typed columns.

Only the used columns are read. A stripe is decoded whole, so memory depends on the stripes of the writer, 64 MB by
default in Hive, Spark and Arrow. ORC has no checksums: damage that still decodes is not found, and other damage costs
its stripe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.base import Chunk, Format, ReadSettings, UnusableFile, empty_rows
from beam_score.transforms.formats.first_rows import FirstRows, Hints
from beam_score.transforms.formats.orc.file import OrcDamage, OrcInput, open_orc
from beam_score.transforms.formats.typed import suspects
from beam_score.transforms.formats.typed.columns import chunk_of, kept_types, python_rows, rows_at_once, used_columns
from beam_score.transforms.rows.faults import stretch


class Orc(Format):
    """ORC: typed columns in stripes."""

    name, title = "orc", "ORC"
    suffixes = (".orc",)
    magic = re.compile(rb"ORC.?[\0-\x08\x0e-\x1f\x7f-\xff]", re.DOTALL)  # text would continue

    def check(self, path: str, settings: ReadSettings, version: str | None = None) -> None:
        with open_orc(path, version) as opened:
            used_columns(opened.schema, settings)

    def columns_of(
        self, path: str, settings: ReadSettings, version: str | None = None
    ) -> dict[str, pa.DataType] | None:
        with open_orc(path, version) as opened:
            return kept_types(opened.schema, settings)

    def cut(
        self, path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None
    ) -> list[FileRange]:
        """Return ranges of whole stripes. The footer's sizes of stripes are not available: all count alike."""
        whole = [FileRange(path, size, bytes=size)]
        if size <= split_bytes * 1.5:
            return whole
        try:
            with open_orc(path, version) as opened:
                if opened.stripes < 2:
                    return whole
                each = max(1, round(split_bytes * opened.stripes / size))
                starts = range(0, opened.stripes, each)
                rows = [opened.rows(stripe) for stripe in range(starts[-1])]
        except (UnusableFile, OrcDamage):
            return whole  # the reader reports what is wrong
        return [
            FileRange(path, size, start, end, sum(rows[:start]), index, size * (end - start) // opened.stripes)
            for index, (start, end) in enumerate(zip(starts, [*starts[1:], opened.stripes], strict=True))
        ]

    def read(self, range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
        with open_orc(range_.path, range_.version) as opened:
            names = used_columns(opened.schema, settings)
            row = range_.first_row
            for stripe in range(range_.start, opened.stripes if range_.end < 0 else range_.end):
                why = suspects.why_not(self.name, range_.path, range_.version, (stripe,), tuple(names))
                try:
                    batch = None if why else opened.stripe(stripe, names)
                except OrcDamage as damage:
                    batch, why = None, str(damage)
                if batch is None:
                    rows = _rows_of(opened, stripe)
                    message = f"stripe {stripe} is damaged: {why}"
                    yield Chunk(empty_rows(settings), stretch(row, rows, "unreadable", message))
                    if rows is None:
                        return  # the number of the next row is not known
                    row += rows
                    continue
                step = rows_at_once(batch, settings)
                for start in range(0, batch.num_rows, step):
                    yield chunk_of(batch.slice(start, step), row + start, settings)
                row += batch.num_rows
            if range_.end in (-1, opened.stripes) and row < opened.total:
                message = f"the footer claims {opened.total:,} rows, and the stripes contain {row:,}"
                yield Chunk(empty_rows(settings), stretch(row, None, "unreadable", message))

    def first_rows(self, path: str, count: int, hints: Hints) -> FirstRows:
        found: list[pa.RecordBatch] = []
        with open_orc(path, None) as opened:
            names = list(dict.fromkeys(opened.schema.names))
            for stripe in range(opened.stripes):
                try:
                    found.append(opened.stripe(stripe, names))
                except OrcDamage as damage:
                    if not found:
                        raise UnusableFile("unreadable", f"stripe {stripe} is damaged: {damage}") from damage
                    break
                if sum(b.num_rows for b in found) >= count:
                    break
            return FirstRows(python_rows(found, count), tuple(names))


FORMAT = Orc()


def _rows_of(opened: OrcInput, stripe: int) -> int | None:
    """Return the rows of a damaged stripe, if another column of it can be decoded."""
    try:
        return opened.rows(stripe)
    except OrcDamage:
        return None
