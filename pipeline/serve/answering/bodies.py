"""The rows of JSON bodies in row form, `{"instances": [{...}, ...]}`, as the lines of a JSON Lines file.

The rows of a request are judged by the reader of JSON Lines, so that a row has the same verdict online as in a file.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_score.transforms.formats.jsonl.exact import Malformed, members

_KEY = rb'(?:"signature_name"\s*:\s*"(?P<signature>[^"\\\x00-\x1f]*)"\s*,\s*)?'
_SIMPLE = re.compile(rb'\s*\{\s*' + _KEY + rb'"instances"\s*:\s*\[(?P<rows>.*)\]\s*\}\s*\Z')
"""A body that holds nothing but its instances, on one line. What stands between the outer brackets is not checked."""

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
    """

    lines: bytes
    rows: int
    signature: str | None = None
    partial: bool = False


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


def exact(body: bytes) -> Body:
    """Return the rows of a body in any form.

    Raises:
      BadBody: it is not a JSON object with a list of instances.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadBody(f"the body is not UTF-8: byte {error.start}") from None
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
    settings = {key: _setting(spans, key) for key in ("signature_name", "on_error")}
    if settings["on_error"] not in (None, "row", "request"):
        raise BadBody('"on_error" must be "row" or "request"')
    if "instances" not in spans:
        raise BadBody('the body has no key "instances": expected {"instances": [...]}')
    first, elements = members(spans["instances"])
    if first != "[" or not elements:
        raise BadBody('"instances" must be a list with at least one instance')
    rows = [_one_line(spans["instances"][start:end]) for _, start, end in elements]
    return Body("\n".join(rows).encode(), len(rows), settings["signature_name"], settings["on_error"] == "row")


def joined(bodies: Sequence[Body]) -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray]:
    """Return the lines of all bodies as one text, where each line starts and ends in it, and the number of the first
    line of each body, followed by that of all lines: int64."""
    data = b"\n".join(body.lines for body in bodies)
    ends = np.append(np.flatnonzero(np.frombuffer(data, np.uint8) == 10), len(data))
    starts = np.append(0, ends[:-1] + 1)
    return data, starts, ends, np.cumsum([0, *(body.rows for body in bodies)])


_KNOWN = ("instances", "signature_name", "on_error")


def _setting(spans: dict[str, str], key: str) -> Any:
    if key not in spans:
        return None
    value = json.loads(spans[key])
    if not isinstance(value, str):
        raise BadBody(f'"{key}" must be a string')
    return value


def _one_line(text: str) -> str:
    # Outside of strings, a line break is space; inside of strings, `members` has refused it.
    return text.replace("\n", " ").replace("\r", " ")
