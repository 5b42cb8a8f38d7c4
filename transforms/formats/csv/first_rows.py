"""The first rows of a CSV file, with its dialect, known or guessed."""

from __future__ import annotations

import collections
import csv
from collections.abc import Sequence

from beam_score.transforms.common.names import quoted
from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Column, Contract, is_refused
from beam_score.transforms.formats.base import Format, ReadSettings, UnusableFile
from beam_score.transforms.formats.csv.dialect import (
    guess_delimiter,
    guess_escape,
    guess_header,
    odd_first_line,
    records,
)
from beam_score.transforms.formats.csv.options import CsvOptions
from beam_score.transforms.formats.detect import refuse_foreign
from beam_score.transforms.formats.first_rows import FIRST_BYTES, Dialect, FirstRows, Guess, Hints
from beam_score.transforms.rows.faults import known_rows
from beam_score.transforms.stores.compression import CorruptStream, RawStream


def first_rows(format_: Format, path: str, count: int, hints: Hints) -> FirstRows:
    """Return the first rows of a file, read as a run would read them in the dialect that is known or guessed.

    Raises:
      UnusableFile: the file is not CSV, or its first line is neither a header nor a row.
      OSError: the file cannot be read.
    """
    text, whole = _head(path)
    options: CsvOptions | None = hints.options
    try:
        delimiter = options.delimiter if options else hints.delimiter or guess_delimiter(text, whole, path)
        escape = options.escape if options else guess_escape(text, delimiter)
        found = records(text, whole, delimiter, count + 2, escape, options.quote if options else '"')
    except csv.Error as error:
        raise UnusableFile("malformed", str(error)) from error
    known = options.header if options else hints.header
    header = guess_header(found, hints.expected) if known is None else Guess(known, True, "")
    dialect = Dialect(delimiter, header, escape)
    if not found:
        return FirstRows([], dialect=dialect)
    if (size := odd_first_line(found)) and not hints.names:
        raise UnusableFile("ragged_row", _odd_first_line(found[0], size, delimiter))
    names = found[0] if header.is_there else hints.names or [f"column_{i}" for i in range(1, len(found[0]) + 1)]
    options = options or CsvOptions(delimiter=delimiter, escape=escape, header=header.is_there)
    rows, unreadable = _rows(format_, path, count, names, options)
    once = [name for name, times in collections.Counter(names).items() if times == 1]  # a run refuses the others
    return FirstRows(rows, tuple(once), unreadable, dialect)


def _rows(
    format_: Format, path: str, count: int, names: Sequence[str], options: CsvOptions
) -> tuple[list[dict[str, str | None]], int]:
    """Return rows as text, bytes that are not UTF-8 as U+FFFD; and the number of rows that a run refuses."""
    times = collections.Counter(names)
    # As bytes, a value cannot be at fault.
    columns = {n: Column(dtype="bytes", required=False) for n in names if times[n] == 1 and not is_refused(n)}
    settings = ReadSettings(
        format_.name,
        Contract(columns=columns),
        payload=False,
        options=options,
        max_block_bytes=FIRST_BYTES // 8,
        max_block_rows=count,
        max_row_bytes=FIRST_BYTES,
    )
    rows: list[dict[str, str | None]] = []
    unreadable = size = 0
    for chunk in format_.read(FileRange(path, 0), settings):
        batch = chunk.rows.select(list(columns)).slice(0, count - len(rows))
        rows += [{n: v if v is None else v.decode(errors="replace") for n, v in r.items()} for r in batch.to_pylist()]
        unreadable += known_rows(chunk.rejected)
        size += chunk.rows.nbytes
        if len(rows) >= count or size >= FIRST_BYTES:
            break
    return rows, unreadable


def _head(path: str) -> tuple[str, bool]:
    """Return the beginning of a file, and whether it is the whole file; data before damage is enough for a guess."""
    parts, left = [], FIRST_BYTES
    with RawStream(path) as stream:
        while left > 0:
            try:
                part = stream.read(left)
            except CorruptStream:
                break
            if not part:
                break
            parts.append(part)
            left -= len(part)
    data = b"".join(parts)
    refuse_foreign(data)
    return data.decode("utf-8-sig", errors="replace"), left > 0


def _odd_first_line(first: Sequence[str], size: int, delimiter: str) -> str:
    shown = quoted(delimiter.join(first)[:60])
    if first[0].startswith("#"):
        what = "is a comment, and CSV has no comments: remove it, for example with: grep -v '^#'"
    elif first[0].startswith("sep="):
        what = "is an instruction for Excel, not a header: remove it, for example with: tail -n +2"
    else:
        what = "is neither a header nor a row: remove or correct it"
    return f"the first line, {shown}, has {len(first)} fields and the next lines have {size}; it {what}"
