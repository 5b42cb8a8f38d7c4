"""Guess the dialect of a CSV file: its delimiter, its escape character, and whether it has a header."""

from __future__ import annotations

import collections
import csv
import io
import itertools
import re
from collections.abc import Collection, Sequence

from beam_score.transforms.common.names import quoted
from beam_score.transforms.formats.first_rows import FIRST_BYTES, Guess
from beam_score.transforms.framing import csv as csv_records

DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+([eE][+-]?[0-9]+)?")
NULLS = ("NULL", "NA", "N/A", "NONE", "NIL", "-", "?", "\\N", "NAN")
"""Common texts for a missing value, in upper case."""

_DELIMITERS = (",", ";", "\t", "|")
_LOOKED_AT = 200  # records, for a guess
_ENOUGH = 20  # rows, to compare their texts with the first line
_NAME = re.compile(r"[^\W\d][\w .\-/()%]{0,63}")


def records(text: str, whole: bool, delimiter: str, most: int, escape: str = "", quote: str = '"') -> list[list[str]]:
    """Return the first records of a CSV text, without blank lines.

    Args:
      whole: whether the text is the whole file; otherwise its last record may be incomplete, and is dropped.
      most: largest number of records.
      escape, quote: one character each; "" for none.
    """
    csv.field_size_limit(FIRST_BYTES)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        escapechar=escape or None,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
    )
    found = [r for r in itertools.islice(reader, most) if r]
    return found if whole or len(found) >= most else found[:-1]


def guess_delimiter(text: str, whole: bool, path: str) -> str:
    """Return the character that splits most records into the same number of fields, more than one; else a comma."""
    if ".tsv" in path.lower():
        return "\t"
    return max(_DELIMITERS, key=lambda d: (*_evenness(records(text, whole, d, _LOOKED_AT), d), d == ","))


def guess_escape(text: str, delimiter: str) -> str:
    """Return a backslash if quotes can only be parsed with it as the escape character; else ""."""
    if '\\"' not in text:
        return ""
    data = text.encode()
    plain, escaped = (csv_records.spans(data, delimiter, '"', escape) for escape in ("", "\\"))
    return "\\" if len(plain.joined) > len(escaped.joined) else ""


def _evenness(found: Sequence[Sequence[str]], delimiter: str) -> tuple[float, float]:
    """Return the share of records with the most frequent number of fields, and the share of fields that contain no
    other delimiter; zeros if the most frequent number is one."""
    if not found:
        return 0.0, 0.0
    size, times = collections.Counter(len(r) for r in found).most_common(1)[0]
    if size == 1:
        return 0.0, 0.0
    others = [d for d in _DELIMITERS if d != delimiter]
    fields = [f for r in found for f in r]
    clean = sum(bool(DECIMAL_COMMA.fullmatch(f.strip())) or not any(d in f for d in others) for f in fields)
    return round(times / len(found), 1), clean / len(fields)


def guess_header(found: Sequence[Sequence[str]], expected: Collection[str] = ()) -> Guess:
    """Guess whether the first record is a header.

    Args:
      found: the first records of the file.
      expected: likely column names: the names of the model's inputs.
    """
    if not found:
        return Guess(True, True, "the file is empty")
    first = [f.strip(" \t") for f in found[0]]
    body = [r for r in found[1 : _LOOKED_AT + 1] if len(r) == len(first)]
    names = {n.casefold() for n in expected}
    if shared := [f for f in first if f.casefold() in names]:
        return Guess(True, True, f"the first line has {quoted(shared[0])}, an input of the model")
    numbers = [f for f in first if _is_number(f)]
    columns = [[v for r in body if not _is_empty(v := r[i].strip(" \t"))] for i in range(len(first))]
    of_numbers = [bool(c) and sum(map(_is_number, c)) >= 0.9 * len(c) for c in columns]
    for_it = [f for f, n in zip(first, of_numbers, strict=True) if n and not _is_empty(f) and not _is_number(f)]
    against = [f for f, n in zip(first, of_numbers, strict=True) if n and _is_number(f)]
    if _are_counted(numbers) and len(numbers) >= len(first) - 1:
        decimals = any(DECIMAL.fullmatch(v) and not v.lstrip("+-").isdigit() for c in columns for v in c)
        why = "the first line numbers the columns, as pandas does for a table without column names"
        return Guess(True, decimals and len(numbers) > 2, why)
    if not body and numbers:
        return Guess(False, False, "the file has one line, and it contains numbers")
    if for_it and not against:
        return Guess(True, True, f"{quoted(for_it[0])} is above a column of numbers")
    if against and for_it:
        why = f"{quoted(for_it[0])} is above a column of numbers, and so is {quoted(against[0])}"
        return Guess(len(for_it) >= len(against), False, why)
    if against and len(numbers) < len(first) and _are_evenly_spaced(numbers):
        return Guess(True, False, f"{', '.join(numbers[:3])} may be column names, for example years")
    if against:
        return Guess(False, True, "the first line contains numbers, as the others do")
    return _header_of_texts(first, columns, body)


def _header_of_texts(first: Sequence[str], columns: Sequence[Sequence[str]], body: Sequence[Sequence[str]]) -> Guess:
    """Guess whether the first record is a header if no column has numbers."""
    if any([f.strip(" \t") for f in r] == list(first) for r in body):
        return Guess(len(first) > 1, False, "the first line is repeated further down")
    for name, column in zip(first, columns, strict=True):
        if name and name in column:
            return Guess(False, len(body) >= _ENOUGH, f"{quoted(name[:40])} is a value of the column further down")
    if not all(_NAME.fullmatch(f) for f in first if f) or len(set(first)) < len(first):
        return Guess(False, False, "the first line does not look like column names")
    for name, column in zip(first, columns, strict=True):
        if len(column) >= _ENOUGH and _is_apart(name, column):
            return Guess(True, True, f"{quoted(name)} differs from all values of its column")
    if not body:
        return Guess(True, len(first) > 1, "the file has one line, and it looks like column names")
    return Guess(True, False, "all columns contain text, and the first line may be column names or a row")


def _is_apart(name: str, column: Sequence[str]) -> bool:
    """Return whether a text differs from a column's values: there are few distinct values, or few patterns, and the
    text has another pattern."""
    if len(set(column)) <= len(column) / 5:
        return True
    patterns = {_pattern(v) for v in column}
    is_phrase = " " not in name and all(" " in v for v in column)
    return _pattern(name) not in patterns and (len(patterns) <= 3 or is_phrase)


def _pattern(text: str) -> str:
    """Return the kinds of a text's characters: `Aa9-a` for `Bern2020-x`."""
    kinds = ("9" if c.isdigit() else "A" if c.isupper() else "a" if c.isalpha() else c for c in text)
    return "".join(k for k, _ in itertools.groupby(kinds))


def _is_number(text: str) -> bool:
    return bool(DECIMAL.fullmatch(text) or DECIMAL_COMMA.fullmatch(text))


def _is_empty(text: str) -> bool:
    return not text or text.upper() in NULLS


def _are_counted(numbers: Sequence[str]) -> bool:
    """Return whether these are consecutive numbers from 0 or 1."""
    return len(numbers) > 1 and any([str(i + at) for i in range(len(numbers))] == list(numbers) for at in (0, 1))


def _are_evenly_spaced(numbers: Sequence[str]) -> bool:
    if len(numbers) < 2 or not all(n.isdigit() and len(n) < 20 for n in numbers):
        return False
    return len({int(b) - int(a) for a, b in itertools.pairwise(numbers)} - {0}) == 1


def odd_first_line(found: Sequence[Sequence[str]]) -> int | None:
    """Return the number of fields that most records have if the first record has another number; else None."""
    if len(found) < 3:
        return None
    size, times = collections.Counter(len(r) for r in found[1:]).most_common(1)[0]
    return size if len(found[0]) != size and times > len(found) / 2 else None
