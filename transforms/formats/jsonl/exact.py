"""The exact parser: one JSON line at a time, by RFC 8259 and the contract, for the lines that the fast ways leave.

A number does not become a float before its target type is known, so integers are exact beyond 2^53, and a long or
deeply nested value fails only its own row.
"""

from __future__ import annotations

import binascii
import dataclasses
import json
import re
from typing import Any

import numpy as np

from beam_score.transforms.contract.columns import Column
from beam_score.transforms.formats.base import ReadSettings

MAX_NESTING = 1000
_SHOWN_CHARS = 40

_WHITE = r"[ \t\r\n]*+"
_STRING = r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_NUMBER = r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
_VALUE = re.compile(rf"{_WHITE}([\[{{]|{_STRING}|{_NUMBER}|true|false|null)")
_KEY = re.compile(rf"{_WHITE}({_STRING}){_WHITE}:")
_AFTER = re.compile(rf"{_WHITE}([,\]}}])")
_END = re.compile(rf"{_WHITE}\Z")
_CLOSED = {"{": re.compile(rf"{_WHITE}\}}"), "[": re.compile(rf"{_WHITE}\]")}
_ARRAY = "; if the file is one JSON array, write a line for each of its elements, as with jq -c '.[]'"
_QUOTED_NUMBER = re.compile(r'"[+-]?[0-9]+(\.[0-9]+)?"')
_PARTS = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_KINDS = {"{": "an object", "[": "a list", '"': "a string", "t": "a boolean", "f": "a boolean", "n": "null"}


class Malformed(Exception):
    """The text is not one JSON value. Args: the error, and the character at which it occurs (0-based)."""


class _Misfit(Exception):
    """A value that is not valid for its column. Args: reason, the value's text, what was expected."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A parsed line.

    Attributes:
      values: one per used column (contract, then kept), None if missing or at fault.
      faults: (column, reason, message) of every value at fault.
    """

    values: list[Any]
    faults: list[tuple[str, str, str]]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A line rejected as a whole."""

    reason: str
    column: str | None
    message: str


def members(text: str, start: int = 0) -> tuple[str, list[tuple[str, int, int]]]:
    """Check that a text is one JSON value, and find its direct members.

    Without recursion: nesting uses no stack.

    Returns:
      the value's first character, and (key, start, end) of each member of an object, or of each element of a list with
        the key "", or of a scalar itself. Keys are undecoded JSON strings, quotes included.

    Raises:
      Malformed: see there.
    """
    found: list[tuple[str, int, int]] = []
    stack: list[str] = []
    key = first = ""
    begin = at = start

    def read_key(at: int) -> tuple[str, int]:
        match = _KEY.match(text, at)
        if match is None:
            raise Malformed("expected a key in quotes and a colon", at)
        return match.group(1), match.end()

    while True:
        match = _VALUE.match(text, at)
        if match is None:
            raise Malformed("expected a value", at)
        token, at = match.group(1), match.end()
        if len(stack) <= 1:
            begin = match.start(1)
        first = first or token[0]
        if token in _CLOSED:
            if len(stack) == MAX_NESTING:
                raise Malformed(f"nested deeper than {MAX_NESTING}", at)
            closed = _CLOSED[token].match(text, at)
            if closed is None:
                stack.append(token)
                if token == "{":
                    name, at = read_key(at)
                    if len(stack) == 1:
                        key = name
                continue
            at = closed.end()
            if not stack:
                break
        elif not stack:
            found.append(("", begin, at))
            break
        while stack:
            if len(stack) == 1:
                found.append((key, begin, at))
            match = _AFTER.match(text, at)
            if match is None:
                raise Malformed("expected a comma or the end of the object or list", at)
            mark, at = match.group(1), match.end()
            if mark == ",":
                if stack[-1] == "{":
                    name, at = read_key(at)
                    if len(stack) == 1:
                        key = name
                break
            if mark != ("}" if stack.pop() == "{" else "]"):
                raise Malformed("the wrong bracket closes", at - 1)
        if not stack:
            break
    if _END.match(text, at) is None:
        raise Malformed("found text after the value", at)
    return first, found


_Spans = dict[str, tuple[int, int]]
"""Where the value of each used key starts and ends."""


class _Number(str):
    """A number as it is written."""


class _Members(list[tuple[str, Any]]):
    """The keys and values of an object."""


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Members, parse_float=_Number, parse_int=_Number, parse_constant=_not_json
)

_MOST_CHARS = 1 << 16
"""A longer text is parsed once, by `members`."""


def _scalars(text: str) -> dict[str, str] | None:
    """Return the values of an object by key, each as it is written, in a fourth of the time of `members`.

    None unless the whole text is certainly such an object: without escapes, so that a string is what is between its
    quotes, without lists and objects in it, and with each key once.
    """
    text = text.strip(" \t\r\n")
    if len(text) > _MOST_CHARS or "\\" in text or text.count("{") + text.count("[") > 1:
        return None
    try:
        value, end = _DECODER.raw_decode(text)
    except ValueError:
        return None
    if end != len(text) or type(value) is not _Members:
        return None
    found = {k: v if type(v) is _Number else f'"{v}"' if type(v) is str else _LITERALS[v] for k, v in value}
    return found if len(found) == len(value) else None


_LITERALS = {None: "null", True: "true", False: "false"}


class LineJudge:
    """Parses and validates single lines.

    Args:
      settings: the used columns of a line, and whether messages may show values.
    """

    def __init__(self, settings: ReadSettings):
        self._columns = settings.contract_columns
        self._bare = settings.options.bare_value_column
        self._show = settings.payload
        self._array = _ARRAY if settings.from_files else ""
        self._reject_extra = settings.extra == "reject"
        self.names = (*settings.contract_columns, *settings.kept_undeclared)
        self._used = frozenset(self.names)

    def judge(self, line: bytes) -> Row | Refusal:
        """Return the values of one line without its line end, or the reason why it is rejected as a whole."""
        try:
            text, broken = line.decode(), False
        except UnicodeDecodeError:
            # Bytes that are not UTF-8 become lone surrogates, which are never in valid text.
            text, broken = line.decode(errors="surrogateescape"), True
        scalars = None if broken else _scalars(text)
        if scalars is not None and not (self._reject_extra and scalars.keys() - self._used):
            return self._row(scalars)
        try:
            first, found = members(text)
        except Malformed as error:
            problem, at = error.args
            near = f", found {_cut(text[at : at + _SHOWN_CHARS + 1])!r}" if self._show else ""
            hint = self._array if text.lstrip().startswith("[") else ""
            return self._refuse("malformed", None, f"not JSON at character {at}: {problem}{near}{hint}")
        if first == "{":
            spans, refusal = self._spans(found, text)
        elif self._bare is not None:
            spans, refusal = {self._bare: (0, len(text))}, None
        else:
            expected = "expected an object keyed by column" + (self._array if first == "[" else "")
            spans, refusal = {}, self._refuse("wrong_type", None, f"found {self._found(text.strip())}, {expected}")
        if broken and (refusal is None or refusal.reason != "malformed") and self._broken_outside(spans, text):
            return self._refuse("malformed", None, "bytes that are not UTF-8")
        return refusal or self._row({name: text[start:end].strip(" \t\r\n") for name, (start, end) in spans.items()})

    def _refuse(self, reason: str, column: str | None, message: str) -> Refusal:
        return Refusal(reason, column and _valid(column), _valid(message))

    def _spans(self, found: list[tuple[str, int, int]], text: str) -> tuple[_Spans, Refusal | None]:
        spans: _Spans = {}
        refusal = extra = None
        for raw, start, end in found:
            key = json.loads(raw) if "\\" in raw else raw[1:-1]
            if key in spans and key in self._used:
                refusal = refusal or self._refuse("duplicate_key", key, f"key {_cut(key)!r} comes twice")
            if key in self._used:
                spans[key] = (start, end)
            elif self._reject_extra and extra is None:
                expected = "the contract does not name it, and extra is reject"
                extra = self._refuse("not_allowed", _cut(key), f"key {_cut(key)!r}: {expected}")
        return spans, refusal or extra

    def _broken_outside(self, spans: _Spans, text: str) -> bool:
        """Return whether bytes that are not UTF-8 occur outside the values of used string columns."""
        inside = [spans[n] for n, c in self._columns.items() if c.dtype == "string" and n in spans]
        return any(
            not any(start <= match.start() < end for start, end in inside)
            for match in re.finditer("[\ud800-\udfff]", text)
        )

    def _row(self, raw: dict[str, str]) -> Row:
        """Return the row of some values as they are written, by key."""
        values, faults = [], []
        for name in self.names:
            value, written, column = None, raw.get(name, "null"), self._columns.get(name)
            try:
                if written != "null":
                    value = written if column is None else _value(written, column, column.shape)
            except _Misfit as misfit:
                reason, shown, expected = misfit.args
                faults.append((name, reason, _valid(f"found {self._found(shown)}, expected {expected}")))
            values.append(value)
        return Row(values, faults)

    def _found(self, raw: str) -> str:
        """Return `"abc" (a string)`, or only the kind if values may not be shown."""
        kind = _KINDS.get(raw[:1], "a number")
        return f"{_cut(raw)} ({kind})" if self._show and raw != "null" else kind


def _value(raw: str, column: Column, shape: tuple[int | None, ...]) -> Any:
    """Return a JSON value as a value of the column, for the remaining dimensions of its shape; raises _Misfit."""
    if not shape:
        if raw[0] == "[":
            raise _Misfit("wrong_shape", raw, column.describe())
        return _scalar(raw, column)
    if raw[0] != "[":
        raise _Misfit("wrong_shape", raw, column.describe())
    _, found = members(raw)
    if shape[0] is not None and len(found) != shape[0]:
        raise _Misfit("wrong_shape", raw, f"{column.describe()}, with {shape[0]} values here, not {len(found)}")
    values = []
    for _, start, end in found:
        if raw[start:end] == "null":
            raise _Misfit("missing_value", raw, f"{column.describe()}, without null in the list")
        values.append(_value(raw[start:end], column, shape[1:]))
    return values


def _scalar(raw: str, column: Column) -> Any:
    if column.dtype == "string":
        if raw[0] == '"':
            text = json.loads(raw) if "\\" in raw else raw[1:-1]
            if text.isascii() or not re.search("[\ud800-\udfff]", text):
                return text
            raise _Misfit("bad_encoding", raw, f"{column.describe()}: text without lone surrogates, in UTF-8")
    elif column.dtype == "bool":
        if raw in ("true", "false"):
            return raw == "true"
    elif column.dtype == "bytes":
        if (content := _base64(raw)) is not None:
            return content
        raise _Misfit("wrong_type", raw, f'{column.describe()}: {{"b64": "..."}} with valid base64')
    elif raw[0] == "-" or raw[0].isdigit():
        return _integer(raw, column) if column.is_integer else _float(raw, column)
    in_string = (
        "; for numbers in strings set from: string" if column.is_numeric and _QUOTED_NUMBER.fullmatch(raw) else ""
    )
    raise _Misfit("wrong_type", raw, column.describe() + in_string)


def _base64(raw: str) -> bytes | None:
    first, found = members(raw)
    if first != "{" or len(found) != 1:
        return None
    key, start, end = found[0]
    if json.loads(key) != "b64" or raw[start] != '"':
        return None
    text = json.loads(raw[start:end])
    try:
        return binascii.a2b_base64(text, strict_mode=True) if text.isascii() else None
    except binascii.Error:
        return None


def _float(raw: str, column: Column) -> np.floating:
    number, (type_, most) = float(raw), _FLOATS[column.dtype]
    if -most <= number <= most:
        return type_(number)
    with np.errstate(over="ignore"):  # a little more than the most is rounded to it
        value: np.floating = type_(number)
    if np.isinf(value):
        limit = np.finfo(column.dtype).max
        raise _Misfit("out_of_range", raw, f"{column.describe()}, with the range {-limit!s} to {limit!s}")
    return value


_FLOATS = {name: (np.dtype(name).type, float(np.finfo(name).max)) for name in ("float16", "float32", "float64")}
"""dtype to the type of its values, and the largest of them."""


def _integer(raw: str, column: Column) -> int:
    info = np.iinfo(column.dtype)
    if len(raw) <= 20 and raw.lstrip("-").isdecimal() and info.min <= (number := int(raw)) <= info.max:
        return number
    parts = _PARTS.fullmatch(raw)
    assert parts is not None  # a number, by `members`
    sign, whole, fraction, exponent = parts.groups(default="")
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return 0
    # An exponent of so many digits is larger than the number of digits that a line can contain.
    power = int(exponent or 0) if len(exponent) < 18 else (-(10**18) if exponent[0] == "-" else 10**18)
    zeros = power - len(fraction) + len(digits) - len(significant)
    if zeros < 0:
        raise _Misfit("wrong_type", raw, f"{column.describe()}, an integer")
    if len(significant) + zeros <= 20:
        value = int(sign + significant) * 10**zeros
        if info.min <= value <= info.max:
            return value
    raise _Misfit("out_of_range", raw, f"{column.describe()}, with the range {info.min} to {info.max}")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def _valid(text: str) -> str:
    """Return the text with lone surrogates as question marks, so that Arrow accepts it."""
    return text.encode(errors="replace").decode()
