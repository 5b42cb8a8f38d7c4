"""A sample of data: the columns of the first rows, and their values.

It is used for the guesses of `beam-score init` and the hints of `beam-score check`. The rows of a run are validated by
the readers in `transforms`.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from beam_score.pipeline.draft.first_rows import ROWS, detect_format, first_rows
from beam_score.pipeline.draft.padded import begin_with_a_space
from beam_score.pipeline.job.mistakes import JobError
from beam_score.transforms.contract.columns import is_refused
from beam_score.transforms.formats.base import format_named
from beam_score.transforms.formats.csv.dialect import DECIMAL, DECIMAL_COMMA, NULLS
from beam_score.transforms.formats.first_rows import UNKNOWN, Dialect, Guess, Hints
from beam_score.transforms.formats.registry import FORMATS
from beam_score.transforms.listing.files import InputFile, list_files

_INTEGER = re.compile(r"[+-]?[0-9]+")
_MOST = 0.9  # share of numbers in a number column: a few other values are more likely bad values than text


@dataclass(frozen=True)
class Seen:
    """The values seen in one column.

    Attributes:
      name: of the column; empty for lines of JSON Lines that are not objects.
      kind: `integer`, `float`, `bool`, `string`, `bytes`, `other`, or `nothing` (all are empty).
      shape: of one value, () for a scalar; None for a dimension that differs between rows.
      rows: number of rows inspected.
      empty: number of missing values.
      misfits: number of values that are neither missing nor of this kind.
      not_finite: number of values that are NaN or infinite.
      low, high: the smallest and largest number; None without numbers.
      unique: whether all values are different.
      rising: whether each number is larger than the previous one.
      fractions: number of numbers that are not integers.
      nulls: texts such as NA in a number column.
      longest: characters or bytes of the longest text.
      spaced: whether all texts begin with a space.
      zero_led: whether a text is an integer with leading zeros, such as `007`, which is more likely a code.
      number_texts: number of values that are numbers written as strings, in a format that has numbers.
      number_kind: `integer` or `float` if nearly all values are numbers written as strings.
      decimal_comma: whether the numbers are texts with a decimal comma.
      not_utf8: number of texts that are not UTF-8, in a text format.
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
    fractions: int = 0
    nulls: tuple[str, ...] = ()
    longest: int = 0
    spaced: bool = False
    zero_led: bool = False
    number_texts: int = 0
    number_kind: str | None = None
    decimal_comma: bool = False
    not_utf8: int = 0

    @property
    def is_number(self) -> bool:
        return self.kind in ("integer", "float")


@dataclass(frozen=True)
class Sample:
    """The columns seen in the first rows of files.

    Attributes:
      format: its name.
      files: number of files.
      rows: number of rows inspected.
      unreadable: number of further rows that could not be parsed.
      columns: by name, in the order of the first file.
      dialect: of CSV. Without a header, columns are named column_1 and so on.
      bare: whether the lines of JSON Lines are not objects; the only column then has an empty name.
      problems: a message for each file that could not be read.
    """

    format: str
    files: int
    rows: int
    unreadable: int
    columns: dict[str, Seen]
    dialect: Dialect | None = None
    bare: bool = False
    problems: tuple[str, ...] = ()

    @property
    def has_names(self) -> bool:
        """True if the data names its columns."""
        return self.dialect is None or self.dialect.header.is_there

    @property
    def is_text(self) -> bool:
        """True if all values are texts, as in CSV."""
        return format_named(self.format).values == "text"

    @property
    def is_flat(self) -> bool:
        """True if lists have no shape, as in a tf.Example."""
        return format_named(self.format).values == "flat"

    @property
    def spaced(self) -> tuple[str, ...]:
        """The columns whose texts all begin with a space."""
        return tuple(n for n, s in self.columns.items() if s.spaced and (s.kind == "string" or s.nulls))


def look_at(patterns: Sequence[str], known: Hints = UNKNOWN) -> Sample:
    """Inspect the first rows of the files that match patterns.

    Args:
      patterns: see `transforms.listing.files.list_files`.
      known: properties of the files that need not be guessed.

    Raises:
      JobError: if no file matches, or the format is unknown, or no file can be read.
    """
    files, problems = list_files(patterns)
    if problems:
        raise JobError(problems)
    return look_at_files(files, known)


def look_at_files(files: Sequence[InputFile], known: Hints = UNKNOWN) -> Sample:
    """Inspect the first rows of listed files; see `look_at`."""
    if known.format not in (None, *FORMATS):
        raise JobError([f"--format: found {known.format!r}, expected {', '.join(FORMATS)}"])
    format_ = known.format or detect_format(files)
    is_text = format_named(format_).values == "text"
    if known.header is not None and not is_text:
        raise JobError([f"--header and --no-header are for CSV, and the format is {format_}"])
    rows: list[Any] = []
    unreadable, dialect, problems = 0, None, []
    known_names: dict[str, None] = {}
    for file in files:
        try:
            found = first_rows(file.path, format_, known)
        except JobError as error:
            if not rows and file is files[-1]:
                raise
            problems += error.problems
            continue
        unreadable += found.unreadable
        known_names.update(dict.fromkeys(found.names))
        if found.rows:
            rows += found.rows
            if dialect is None and found.dialect is not None:  # the same dialect for all files, as in the job
                dialect = found.dialect
                known = dataclasses.replace(known, delimiter=dialect.delimiter, header=dialect.header.is_there)
        if dialect is not None and found.dialect is not None and not dialect.escape:
            dialect = dataclasses.replace(dialect, escape=found.dialect.escape)
        if len(rows) >= ROWS:
            break
    rows = rows[:ROWS]
    if dialect is None and is_text:
        dialect = Dialect(known.delimiter or ",", Guess(known.header is not False, True, ""))
    bare = bool(rows) and sum(isinstance(r, dict) for r in rows) * 2 < len(rows)
    if bare:
        columns = {"": _seen("", [r for r in rows if not isinstance(r, dict)], is_text)}
    else:
        rows = [r for r in rows if isinstance(r, dict)]
        # A contract refuses these names; for example, pandas writes the index as a column named "".
        found_names = dict.fromkeys(itertools.chain(known_names, itertools.chain.from_iterable(rows)))
        names = [n for n in found_names if not is_refused(n)]
        columns = {n: _seen(n, [r.get(n) for r in rows], is_text) for n in names}
    return Sample(format_, len(files), len(rows), unreadable, columns, dialect, bare, tuple(problems))


def _seen(name: str, values: Sequence[Any], is_text: bool) -> Seen:
    raw = [v for v in values if v is not None]
    texts = [x for v in raw for x in _flatten(v) if isinstance(x, str)]
    comma = _has_decimal_commas(texts)
    filled = [_from_text(v, comma) for v in raw] if is_text else raw
    flat = [list(_flatten(v)) for v in filled]
    kinds = [_kind(f) for f in flat]
    counts = collections.Counter("number" if k in ("integer", "float") else k for k in kinds)
    empty_lists = counts.pop("", 0)
    kind = counts.most_common(1)[0][0] if counts else "nothing"
    if counts["number"] >= _MOST * (len(filled) - empty_lists) and counts["number"]:
        kind = "number"
    misfits = len(filled) - empty_lists - counts[kind] if counts else 0
    nulls: tuple[str, ...] = ()
    numbers: list[float | int] = []
    if kind == "number":
        kind = "float" if "float" in kinds else "integer"
        numbers = [x for f, k in zip(flat, kinds, strict=True) if k in ("integer", "float") for x in f]
        odd = {f[0] for f, k in zip(flat, kinds, strict=True) if k == "string" and len(f) == 1}
        nulls = tuple(sorted(t for t in odd if t.strip(" \t").upper() in NULLS))
    finite = [x for x in numbers if math.isfinite(x)]
    of_numbers = [] if is_text else [x for t in texts if isinstance(x := _from_text(t, comma), int | float)]
    of_numbers = [x for x in of_numbers if not isinstance(x, bool)]
    number_kind = None
    if kind == "string" and len(of_numbers) >= _MOST * len(texts):
        number_kind = "float" if any(isinstance(x, float) for x in of_numbers) else "integer"
    return Seen(
        name,
        kind,
        _common({_shape(v) for v in filled}),
        len(values),
        len(values) - len(filled),
        misfits,
        len(numbers) - len(finite),
        min(finite, default=None),
        max(finite, default=None),
        len(filled) > 1 and all(len(f) == 1 for f in flat) and len({f[0] for f in flat}) == len(filled),
        len(finite) > 1 and all(a < b for a, b in itertools.pairwise(finite)),
        sum(isinstance(x, float) and not x.is_integer() for x in finite),
        nulls,
        max((len(x) for f in flat for x in f if isinstance(x, str | bytes)), default=0),
        begin_with_a_space(texts),
        any(_ZERO_LED.fullmatch(t.strip(" \t")) for t in texts),
        len(of_numbers),
        number_kind,
        comma,
        sum("\ufffd" in t for t in texts),
    )


_ZERO_LED = re.compile(r"[+-]?0[0-9]+")


def _has_decimal_commas(texts: Sequence[str]) -> bool:
    """Return whether nearly all texts are numbers, and some have a decimal comma."""
    bare = [t.strip(" \t") for t in texts]
    commas = sum(bool(DECIMAL_COMMA.fullmatch(t)) for t in bare)
    return commas > 0 and commas + sum(bool(_INTEGER.fullmatch(t)) for t in bare) >= _MOST * len(bare)


def _from_text(text: str, comma: bool = False) -> Any:
    bare = text.strip(" \t")
    if comma and DECIMAL_COMMA.fullmatch(bare):
        bare = bare.replace(",", ".")
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
    """Return a common shape: of the most frequent rank, with None for dimensions that differ."""
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
        yield (repr(value),)  # a tuple: kind "other", and hashable
    elif isinstance(value, decimal.Decimal):
        yield float(value)
    elif value is not None:
        yield value


def _kind(flat: Sequence[Any]) -> str:
    """Return the common kind of values; "" without values."""
    if not flat:
        return ""
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
