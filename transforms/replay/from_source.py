"""Reading of selected rows from the file that they were first read from, by their numbers."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import filter_rows
from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.base import Chunk, ReadSettings, UnusableFile, empty_rows, format_named
from beam_score.transforms.formats.reading.blocks import read_range
from beam_score.transforms.listing.files import InputFile
from beam_score.transforms.replay.dead_letter import DeadLetter, missing_again
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import stretch
from beam_score.transforms.stores.compression import damage_of
from beam_score.transforms.stores.local_file import is_of_the_system

_RANGE_BYTES = 8 << 20
"""A file is cut finer than for a run: only ranges with a wanted row are read."""

_MOST_CUTS = 64


def from_source(now: Mapping[str, Any], dead_letters: Sequence[DeadLetter], settings: ReadSettings) -> Iterator[Chunk]:
    """Yield the rows that some dead letters stand for, as their file contains them now, and no others. A row that is no
    longer in the file is rejected again.

    Args:
      now: what identifies a changed file, including its `path` and `size`.
      dead_letters: in order of their rows; one of unknown length stands for all rows from its own on.
      settings: of the format of the file.
    """
    search = _Search(dead_letters, settings)
    try:
        ranges = _CUTS.of(now, settings)
        for range_, end in zip(ranges, [*(r.first_row for r in ranges[1:]), None], strict=True):
            if search.wants(range_.first_row, end):
                yield from search.read(range_)
    except UnusableFile as error:
        yield from search.unusable(error)
    else:
        yield from search.missing("its file no longer contains this row")


class _Search:
    """The wanted rows of one file, and the rows found."""

    def __init__(self, dead_letters: Sequence[DeadLetter], settings: ReadSettings):
        self._letters, self._settings = dead_letters, settings
        self._source = dead_letters[0].source
        spans = [np.arange(letter.row, letter.row + letter.rows) for letter in dead_letters if letter.rows is not None]
        self._wanted = np.unique(np.concatenate([np.array([], np.int64), *spans]))
        self._found = np.zeros(len(self._wanted), bool)
        open_ = [letter for letter in dead_letters if letter.rows is None]
        self._rest = open_[0].row if open_ else None

    def wants(self, first: int, end: int | None) -> bool:
        """Return whether a row from `first` to before `end` is wanted."""
        if self._rest is not None and (end is None or end > self._rest):
            return True
        low = np.searchsorted(self._wanted, first)
        high = len(self._wanted) if end is None else np.searchsorted(self._wanted, end)
        return bool(low < high)

    def read(self, range_: FileRange) -> Iterator[Chunk]:
        row = range_.first_row
        try:
            for chunk in read_range(format_named(self._settings.format), range_, self._settings):
                row = max(row, _last(chunk) + 1)
                picked = self._pick(chunk)
                if picked.rows.num_rows or picked.rejected.num_rows:
                    yield picked
                if self._rest is None and self._found.all():
                    return
        except OSError as error:
            if is_of_the_system(error):
                raise
            if self._rest is not None:
                message = f"the rest of the file could not be read: {error.strerror or type(error).__name__}"
                yield self._stretch(max(row, self._rest), "unreadable", message)

    def _pick(self, chunk: Chunk) -> Chunk:
        rows = filter_rows(chunk.rows, self._take(chunk.rows[ROW].to_numpy()))
        kept = []
        for index, (row, count) in enumerate(_spans(chunk.rejected)):
            if count is None:
                if self._rest is not None:
                    letter = chunk.rejected.slice(index, 1)
                    kept.append(letter.set_column(0, "row", pa.array([max(row, self._rest)])))
            elif self._take(np.arange(row, row + count), whole=True).all():
                kept.append(chunk.rejected.slice(index, 1))
        rejected = pa.concat_batches(kept) if kept else chunk.rejected.slice(0, 0)
        return Chunk(rows, rejected, chunk.origin, self._source)

    def _take(self, numbers: np.ndarray, whole: bool = False) -> np.ndarray:
        """Return a mask of the wanted rows among some rows, and mark these as found.

        Args:
          whole: take all of the rows, or none.
        """
        at = np.searchsorted(self._wanted, numbers)
        known = at < len(self._wanted)
        known[known] = self._wanted[at[known]] == numbers[known]
        taken = known if self._rest is None else known | (numbers >= self._rest)
        if not whole or taken.all():
            self._found[at[known]] = True
        return taken

    def unusable(self, error: UnusableFile) -> Iterator[Chunk]:
        """Yield the chunks for a file that cannot be used at all as it is now."""
        yield from self.missing(f"its file cannot be used: {error.message}")
        if self._rest is not None:
            yield self._stretch(self._rest, error.reason, error.message, error.column)

    def missing(self, why: str) -> Iterator[Chunk]:
        yield from missing_again(self._letters, self._wanted[~self._found], f"not replayed: {why}", self._settings)

    def _stretch(self, row: int, reason: str, message: str, column: str | None = None) -> Chunk:
        rejected = stretch(row, None, reason, message, column)
        return Chunk(empty_rows(self._settings), rejected, source=self._source)


def _last(chunk: Chunk) -> int:
    """Return the number of the last row of a chunk; -1 for none."""
    rows = chunk.rows[ROW].to_numpy()
    last = [row + (count or 1) - 1 for row, count in _spans(chunk.rejected)]
    return max([*rows[-1:].tolist(), *last[-1:]], default=-1)


def _spans(rejected: pa.RecordBatch) -> list[tuple[int, int | None]]:
    """Return (row, rows) of each dead letter."""
    return list(zip(rejected["row"].to_pylist(), rejected["rows"].to_pylist(), strict=True))


class _Cuts:
    """The ranges of files, each file cut once in this process: to number rows, text must be read to its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[Any, ...], list[FileRange]] = {}

    def of(self, now: Mapping[str, Any], settings: ReadSettings) -> list[FileRange]:
        numbering = (settings.format, settings.options, settings.max_row_bytes)
        with self._lock:
            key = (*now.values(), *numbering, tuple(settings.contract_columns), settings.keep)
            if key not in self._known:
                if len(self._known) >= _MOST_CUTS:
                    self._known.pop(next(iter(self._known)))
                version = InputFile(**now).version
                ranges = format_named(settings.format).cut(now["path"], now["size"], _RANGE_BYTES, settings, version)
                sound = damage_of(now["path"], version) if len(ranges) == 1 else None
                self._known[key] = [dataclasses.replace(range_, version=version, sound=sound) for range_ in ranges]
            return self._known[key]


_CUTS = _Cuts()
