"""Parsing of JSON lines to typed columns: the fast ways first, then the exact judge for the remaining lines.

Each way accepts only lines that it parses correctly, so the result for a line depends neither on the way it was parsed,
nor on its neighbours.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import concat, valid_utf8
from beam_score.transforms.formats.base import Chunk, ReadSettings
from beam_score.transforms.formats.jsonl.arrow import ArrowLines
from beam_score.transforms.formats.jsonl.exact import LineJudge, Row
from beam_score.transforms.formats.jsonl.lines import Lines
from beam_score.transforms.framing.lines import CR, LF, count_bytes, count_where
from beam_score.transforms.framing.positions import Listed
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.rows.faults import FAULTS, NO_REJECTED, dead_letters, fault_lists, faults_column, faults_of
from beam_score.transforms.rows.origin import Origin

if TYPE_CHECKING:
    from beam_score.transforms.formats.jsonl.template import TemplateLines

FAST_WAYS = ("template", "arrow")
"""In the order in which they are tried; without any, every line goes to the exact judge."""


def too_large(size: int, settings: ReadSettings) -> str:
    """Return the message for a line over `max_row_bytes`."""
    return f"the line has {size} bytes, more than max_row_bytes {settings.max_row_bytes}"


def _fast_way(name: str, settings: ReadSettings) -> TemplateLines | ArrowLines:
    if name == "arrow":
        return ArrowLines(settings)
    from beam_score.transforms.formats.jsonl.template import TemplateLines  # it imports polars: a quarter of a second

    return TemplateLines(settings)


class LineParser:
    """Parses the lines of one file; the learned form of the lines is kept from block to block.

    Args:
      settings: what to read.
      ways: the fast ways to try; the results are the same with fewer.
    """

    def __init__(self, settings: ReadSettings, ways: tuple[str, ...] = FAST_WAYS):
        self._settings = settings
        self._judge = LineJudge(settings)
        self._types = {n: c.arrow_type for n, c in settings.contract_columns.items()}
        self._types |= dict.fromkeys(settings.kept_undeclared, pa.string())
        self._ways = [_fast_way(way, settings) for way in ways]

    def parse(self, data: bytes, starts: np.ndarray, ends: np.ndarray, row: int, origin: Origin | None) -> Chunk:
        """Return the lines of a block as a chunk; the first is number `row`."""
        lines = Lines(data, starts, ends)
        taken: list[np.ndarray] = []
        batches: list[pa.RecordBatch] = []
        large = ends - starts > self._settings.max_row_bytes
        left = np.flatnonzero(~(large | self._is_odd(lines)))
        odd = np.ones(len(lines), bool)
        for way in self._ways:
            if len(left) <= (_FEW_LEFT * len(lines) if taken else 0):
                break
            picked = lines if len(left) == len(lines) else lines.pick(left)
            good, batch = way.take(picked)
            if len(good):
                taken.append(left[good])
                batches.append(batch)
                odd[taken[-1]] = False
            left = np.delete(left, good) if len(good) else left
        return self._assemble(lines, np.flatnonzero(odd), large, taken, batches, row, origin)

    @staticmethod
    def _is_odd(lines: Lines) -> np.ndarray:
        """Return a mask of the lines that the fast ways must not process: control characters, bytes that are not
        UTF-8, deep nesting. pyarrow would stop at a NUL, not check UTF-8, and crash on nesting."""
        odd = np.zeros(len(lines), bool)
        text = np.frombuffer(lines.data, np.uint8)
        if count_where(lines.data, lambda piece: piece < 32) > count_bytes(lines.data, LF):
            control = np.flatnonzero(text < 32)
            byte = text[control]
            control = control[(byte != LF) & (byte != CR)]
            odd[_line_of(lines, control)] = True
        if not valid_utf8(lines.data):
            high = np.unique(_line_of(lines, np.flatnonzero(text >= 128)))
            odd[[i for i in high.tolist() if not valid_utf8(lines.line(i))]] = True
        # pyarrow would drop a byte order mark at the start of its text.
        odd |= text[lines.starts] == 0xEF
        if count_where(lines.data, _is_opening) > len(lines) + _DEEP:
            opening = np.flatnonzero(_is_opening(text))
            odd |= np.bincount(_line_of(lines, opening), minlength=len(lines)) > _DEEP
        return odd

    def _assemble(
        self,
        lines: Lines,
        odd: np.ndarray,
        large: np.ndarray,
        taken: list[np.ndarray],
        batches: list[pa.RecordBatch],
        row: int,
        origin: Origin | None,
    ) -> Chunk:
        """Return the chunk of some lines.

        Args:
          odd: positions of the lines for the exact judge.
          large: a mask of the lines over `max_row_bytes`.
          taken, batches: positions of the lines that the fast ways parsed, and their columns.
        """
        rows: list[list[Any]] = []
        kept: list[int] = []
        faults: list[tuple[int, str, str, str]] = []
        refused: list[tuple[int, str | None, str, str]] = []
        for index in odd.tolist():
            if large[index]:
                size = int(lines.ends[index] - lines.starts[index])
                refused.append((index, None, "too_large", too_large(size, self._settings)))
                continue
            verdict = self._judge.judge(lines.line(index))
            if isinstance(verdict, Row):
                faults += [(index, *fault) for fault in verdict.faults]
                kept.append(index)
                rows.append(verdict.values)
            else:
                refused.append((index, verdict.column, verdict.reason, verdict.message))
        if kept or not batches:
            arrays = [pa.array([r[i] for r in rows], type_) for i, type_ in enumerate(self._types.values())]
            arrays = [*arrays, pa.array(kept, pa.int64())]
            batches = [*batches, pa.RecordBatch.from_arrays(arrays, [*self._types, ROW]).select(list(self._types))]
            taken = [*taken, np.array(kept, np.int64)]
        index = np.concatenate(taken)
        batch = concat(batches) if len(batches) > 1 else batches[0]
        if len(batches) > 1:
            order = np.argsort(index, kind="stable")
            batch, index = batch.take(pa.array(order)), index[order]
        columns = {ROW: pa.array(row + index, pa.int64())} | dict(zip(self._types, batch.columns, strict=True))
        if faults:
            at = np.searchsorted(index, [position for position, *_ in faults]).tolist()
            found = faults_of((position, *fault) for position, (_, *fault) in zip(at, faults, strict=True))
            columns[FAULTS] = faults_column(len(index), found, self._settings.columns.order)
        if origin is not None and (faults or refused):  # payloads are needed
            origin = dataclasses.replace(origin, known=Listed(lines.starts, lines.ends))
        rejected = NO_REJECTED
        if refused:
            positions, errors = fault_lists(faults_of(refused), {})
            rejected = dead_letters(row + positions, errors, "read", origin)
        return Chunk(pa.RecordBatch.from_pydict(columns), rejected, origin)


_FEW_LEFT = 0.01
"""If one way leaves at most this share of a block, these lines go to the exact judge at once: they are likely to be
rejected, and each rejection costs Arrow a call of some 0.3 ms, the judge 0.03 ms."""

_DEEP = 200
"""A line with this many brackets is left to the exact judge, which needs no stack."""


def _is_opening(text: np.ndarray) -> np.ndarray:
    return (text | 32) == 0x7B  # [ or {


def _line_of(lines: Lines, positions: np.ndarray) -> np.ndarray:
    """Return the line that contains each byte position; positions between lines are left out."""
    line = np.searchsorted(lines.starts, positions, side="right") - 1
    inside = (line >= 0) & (positions < lines.ends[line])
    return line[inside]
