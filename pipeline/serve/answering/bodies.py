"""The rows of JSON bodies, in row form or in column form, as the lines of a JSON Lines file.

The rows of a request are judged by the reader of JSON Lines, so that a row has the same verdict online as in a file.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beam_score.transforms.formats.jsonl.exact import Malformed, members

_KEY = rb'(?:"signature_name"\s*:\s*"(?P<signature>[^"\\\x00-\x1f]*)"\s*,\s*)?'
_SIMPLE = re.compile(rb"\s*\{\s*" + _KEY + rb'"instances"\s*:\s*\[(?P<rows>.*)\]\s*\}\s*\Z')
"""A body that holds nothing but its instances, on one line. The text between the outer brackets is not checked."""

_BETWEEN = re.compile(rb"\}[ \t]*,[ \t]*\{")


class BadBody(Exception):
    """A body that is refused as a whole. Args: a sentence without values of the request."""


@dataclasses.dataclass(frozen=True)
class Body:
    """The rows of a request.

    Attributes:
      lines: one JSON value per instance, separated by LF; none contains one.
      rows: their number.
      signature: the signature that the request names.
      partial: whether the good rows are predicted if others are refused.
      columns: the columns of a request in column form; None in row form.
    """

    lines: bytes
    rows: int
    signature: str | None = None
    partial: bool = False
    columns: Sequence[str] | None = None

    @property
    def by_row(self) -> bool:
        """True if the answer is in row form, in which a refused row is null."""
        return self.columns is None or self.partial


def quick(body: bytes) -> Body | None:
    """Return the rows of a body in its usual form, without parsing it; None if it has another form.

    The text is cut wherever a `}` is followed by a comma and a `{`. If every piece is one JSON value, then the cuts are
    right: a cut inside a string or inside a bracket would leave the piece before it without its end. So a caller that
    finds a piece malformed must read the body with `exact`.
    """
    found = _SIMPLE.match(body)
    if found is None:
        return None
    rows = found["rows"]
    lines = _BETWEEN.sub(b"}\n{", rows)
    if not lines.strip():
        return None
    named = found["signature"]
    return Body(lines, lines.count(b"\n") + 1, None if named is None else named.decode(errors="surrogateescape"))


@dataclasses.dataclass(frozen=True)
class Outer:
    """The JSON object that a body is, its members not yet parsed.

    Attributes:
      spans: the text of each member.
      signature: the signature that it names.
    """

    spans: Mapping[str, str]
    signature: str | None

    def rows(self) -> Body:
        """Return the rows. Raises BadBody."""
        on_error = _setting(self.spans, "on_error")
        if on_error not in (None, "row", "request"):
            raise BadBody('"on_error" must be "row" or "request"')
        if ("instances" in self.spans) == ("inputs" in self.spans):
            raise BadBody('expected one of the keys "instances", a list of rows, and "inputs", an object of columns')
        if "instances" in self.spans:
            rows, names = _instances(self.spans["instances"]), None
        else:
            rows, names = _transposed(self.spans["inputs"])
        return Body("\n".join(rows).encode(), len(rows), self.signature, on_error == "row", names)


def exact(body: bytes) -> Outer:
    """Return the members of a body in any form. Raises BadBody: it is not a JSON object."""
    spans = _spans(body)
    return Outer(spans, _setting(spans, "signature_name"))


def _spans(body: bytes) -> dict[str, str]:
    """Return the text of each member of the JSON object that a body is."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadBody(f"the body is not UTF-8 at byte {error.start}") from None
    try:
        first, found = members(text)
    except Malformed as error:
        problem, at = error.args
        raise BadBody(f"the body is not JSON: {problem} at character {at}") from None
    if first != "{":
        raise BadBody('the body is not a JSON object: expected {"instances": [...]}')
    spans: dict[str, str] = {}
    for raw, start, end in found:
        key = json.loads(raw)
        if key in spans:
            raise BadBody(f"the body has the key {key!r} twice" if key in _KNOWN else "the body has a key twice")
        spans[key] = text[start:end]
    return spans


def _instances(text: str) -> list[str]:
    first, elements = members(text)
    if first != "[" or not elements:
        raise BadBody('"instances" must be a list with at least one instance')
    return [_one_line(text[start:end]) for _, start, end in elements]


def _transposed(text: str) -> tuple[list[str], list[str]]:
    """Return the rows of an object of columns, as the text of an object each: each value keeps its own spelling; and
    the names of the columns."""
    first, columns = members(text)
    if first != "{" or not columns:
        raise BadBody('"inputs" must be an object with a list for each column')
    values: list[list[str]] = []
    for raw, start, end in columns:
        column = text[start:end]
        first, elements = members(column)
        if first != "[":
            raise BadBody('"inputs": expected a list of values for each column')
        values.append([f"{raw}:{_one_line(column[begin:stop])}" for _, begin, stop in elements])
    rows = {len(column) for column in values}
    if len(rows) > 1:
        raise BadBody(f'"inputs": its columns have from {min(rows)} to {max(rows)} values: expected the same number')
    if rows == {0}:
        raise BadBody('"inputs" must have at least one row')
    names = [json.loads(raw) for raw, _, _ in columns]
    return ["{" + ",".join(row) + "}" for row in zip(*values, strict=True)], names


def joined(bodies: Sequence[Body]) -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray]:
    """Return the lines of all bodies as one text, where each line starts and ends in it, and the number of the first
    line of each body, followed by that of all lines: int64."""
    data = b"\n".join(body.lines for body in bodies)
    ends = np.append(np.flatnonzero(np.frombuffer(data, np.uint8) == 10), len(data))
    starts = np.append(0, ends[:-1] + 1)
    return data, starts, ends, np.cumsum([0, *(body.rows for body in bodies)])


_KNOWN = ("instances", "inputs", "signature_name", "on_error")


def _setting(spans: Mapping[str, str], key: str) -> Any:
    if key not in spans:
        return None
    value = json.loads(spans[key])
    if not isinstance(value, str):
        raise BadBody(f'"{key}" must be a string')
    return value


def _one_line(text: str) -> str:
    # Outside of strings, a line break is space; inside of strings, `members` has refused it.
    return text.replace("\n", " ").replace("\r", " ")
