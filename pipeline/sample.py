"""A look at the first rows of some data: which columns there are, and what is in them.

It serves `beam-score init` only: what it finds is written into comments and guesses that a person
reads. The readers in `transforms` judge the rows of a run.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.first_rows import DECIMAL, ROWS, first_rows, tell_format
from pipeline.mistakes import JobError
from transforms.files import list_files

_REFUSED = ("#", "input/", "output/")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NULLS = ("NULL", "NA", "N/A", "NONE", "NIL", "-", "?", "\\N")


@dataclass(frozen=True)
class Seen:
    """What was seen of one column.

    Attributes:
      name: of the column; empty for the values of JSON Lines that are no objects.
      kind: `integer`, `float`, `bool`, `string`, `bytes`, `other`, or `nothing` (all are empty).
      shape: of one value, () for a scalar; None for a dimension that differs between rows.
      rows: looked at.
      empty: of these, missing.
      misfits: of these, neither missing nor of this kind.
      not_finite: of these, NaN or infinite.
      low, high: the smallest and largest number; None where there is none.
      unique: whether no value came twice.
      rising: whether each number was larger than the one before.
      nulls: texts such as NA that a number column holds.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...] = ()
    rows: int = 0
    empty: int = 0
    misfits: int = 0
    not_finite: int = 0
    low: float | int | None = None
    high: float | int | None = None
    unique: bool = False
    rising: bool = False
    nulls: tuple[str, ...] = ()

    @property
    def is_number(self) -> bool:
        return self.kind in ("integer", "float")


@dataclass(frozen=True)
class Sample:
    """What was seen of some files.

    Attributes:
      format: `csv`, `jsonl`, `parquet` or `tfrecord`.
      files: how many there are.
      rows: how many were looked at.
      unreadable: how many more could not be parsed.
      columns: by name, in the order of the first file.
      delimiter, header: of CSV. Without a header, columns are called column_1 and so on.
      bare: JSON Lines whose lines are no objects; the one column has an empty name.
    """

    format: str
    files: int
    rows: int
    unreadable: int
    columns: dict[str, Seen]
    delimiter: str = ","
    header: bool = True
    bare: bool = False


def look_at(patterns: Sequence[str]) -> Sample:
    """Looks at the first rows of the files that match.

    Args:
      patterns: see `transforms.files.list_files`.

    Raises:
      JobError: nothing matches, or the first file is of no known format, or not to be read.
    """
    files, problems = list_files(patterns)
    if problems:
        raise JobError(problems)
    format_ = tell_format(files)
    rows, unreadable, delimiter, header = [], 0, ",", True
    for file in files:
        try:
            found = first_rows(file.path, format_)
        except JobError:
            if not rows:
                raise
            continue
        rows += found.rows
        unreadable += found.unreadable
        delimiter, header = found.delimiter, found.header
        if len(rows) >= ROWS:
            break
    rows = rows[:ROWS]
    bare = format_ == "jsonl" and bool(rows) and sum(isinstance(r, dict) for r in rows) * 2 < len(rows)
    if bare:
        columns = {"": _seen("", [r for r in rows if not isinstance(r, dict)], False)}
    else:
        rows = [r for r in rows if isinstance(r, dict)]
        # A contract refuses such names: pandas calls the index that it writes "".
        names = [n for n in dict.fromkeys(itertools.chain.from_iterable(rows)) if n and not n.startswith(_REFUSED)]
        columns = {n: _seen(n, [r.get(n) for r in rows], format_ == "csv") for n in names}
    return Sample(format_, len(files), len(rows), unreadable, columns, delimiter, header, bare)


def _seen(name: str, values: Sequence[Any], is_text: bool) -> Seen:
    filled = [_from_text(v) if is_text else v for v in values if v is not None]
    shapes = {_shape(v) for v in filled}
    flat = [list(_flatten(v)) for v in filled]
    kinds = [_kind(f) for f in flat]
    counts = collections.Counter("number" if k in ("integer", "float") else k for k in kinds)
    kind = counts.most_common(1)[0][0] if counts else "nothing"
    if counts["number"] >= 0.9 * len(filled) and counts["number"]:
        kind = "number"  # a few that are not are more likely bad values than text
    misfits = len(filled) - counts[kind] if counts else 0
    nulls: tuple[str, ...] = ()
    not_finite = 0
    numbers: list[float | int] = []
    if kind == "number":
        kind = "float" if "float" in kinds else "integer"
        numbers = [x for f, k in zip(flat, kinds, strict=True) if k in ("integer", "float") for x in f]
        not_finite = len(numbers)
        numbers = [x for x in numbers if math.isfinite(x)]
        not_finite -= len(numbers)
        texts = {f[0] for f, k in zip(flat, kinds, strict=True) if k == "string" and len(f) == 1}
        nulls = tuple(sorted(t for t in texts if t.strip().upper() in _NULLS))
    return Seen(
        name,
        kind,
        _common(shapes),
        len(values),
        len(values) - len(filled),
        misfits,
        not_finite,
        min(numbers, default=None),
        max(numbers, default=None),
        len(filled) > 1 and all(len(f) == 1 for f in flat) and len({f[0] for f in flat}) == len(filled),
        len(numbers) > 1 and all(a < b for a, b in itertools.pairwise(numbers)),
        nulls,
    )


def _from_text(text: str) -> Any:
    bare = text.strip(" \t")
    if _INTEGER.fullmatch(bare) and len(bare) < 4000:
        return int(bare)
    if DECIMAL.fullmatch(bare) or bare.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(bare)
    return bare.lower() == "true" if bare.lower() in ("true", "false") else text


def _shape(value: Any) -> tuple[int | None, ...]:
    if not isinstance(value, list):
        return ()
    inner = {_shape(v) for v in value if v is not None} or {()}
    return (len(value), *_common(inner))


def _common(shapes: Iterable[tuple[int | None, ...]]) -> tuple[int | None, ...]:
    """One shape for all: the most frequent rank's, None for a dimension that differs."""
    shapes = list(shapes)
    if not shapes:
        return ()
    rank = collections.Counter(len(s) for s in shapes).most_common(1)[0][0]
    sizes = [{s[i] for s in shapes if len(s) == rank} for i in range(rank)]
    return tuple(s.pop() if len(s) == 1 else None for s in sizes)


def _flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flatten(item)
    elif isinstance(value, dict) and value.keys() == {"b64"}:
        yield str(value["b64"]).encode()
    elif isinstance(value, dict):
        yield (repr(value),)  # a tuple: of no kind, and hashable
    elif isinstance(value, decimal.Decimal):
        yield float(value)
    elif value is not None:
        yield value


def _kind(flat: Sequence[Any]) -> str:
    kinds = {_ONE.get(type(v), "other") for v in flat}
    if kinds == {"integer", "float"}:
        return "float"
    return kinds.pop() if len(kinds) == 1 else "other"


_ONE = {
    bool: "bool",
    int: "integer",
    float: "float",
    str: "string",
    bytes: "bytes",
    datetime.date: "other",
}
