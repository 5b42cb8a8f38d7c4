"""What an exception says, without the values of the row that it was raised on: dead letters and logs
show no data of their own accord."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

MAX_CHARS = 300

_NUMBER = re.compile(r"(?<![A-Za-z_0-9])[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|nan\b|inf(?:inity)?\b)", re.IGNORECASE)
_WORD = re.compile(r"\w+")
# TensorFlow's frame around an op's message, and the places in the graph that follow it.
_FRAME = re.compile(r"^(Graph execution error:|Detected at node .*|<stack traces unavailable>|\s*File \".*|)$")
_EXPECTED = ", expected "
# From the first quote to the last: a value may hold quotes of its own.
_QUOTED = re.compile(r"""['"].*['"]""", re.DOTALL)
_PLACE = re.compile(r"\[\[\{\{node ([^}]*)\}\}\]\]|\[\[[^\]]*\]\]|\[Op:[^\]]*\]|name:\s*$")


def told(error: Exception, row: pa.RecordBatch) -> str:
    """`InvalidArgumentError: assertion failed: [x is above] [#] (node Assert)`.

    Numbers become `#`, text that the row holds becomes `...`, word by word and in any case, since a
    model's assertions print what they saw, or what it was made into.

    Args:
      row: a batch of the one row.
    """
    text = str(getattr(error, "message", None) or error)
    lines = [line for line in text.splitlines() if not _FRAME.match(line)]
    node = next((m[1] for m in _PLACE.finditer(text) if m[1]), None)
    text = " ".join(_PLACE.sub(" ", " ".join(lines)).split())
    words: set[str] = set()
    for column in row.columns:
        for value in _texts(column[0].as_py()):
            if len(value) > 3:
                text = re.sub(re.escape(value), "...", text, flags=re.IGNORECASE)
            words.update(w.casefold() for w in _WORD.findall(value))
    text = _WORD.sub(lambda m: "..." if m[0].casefold() in words else m[0], text) if words else text
    text = _NUMBER.sub("#", text)[:MAX_CHARS]
    return f"{type(error).__name__}: {text}" + (f" (node {node})" if node else "")


def without_values(message: str) -> str:
    """A dead letter's message, which may quote what was found, as it may stand in a log: what was
    expected, where it says so; else all but what is in quotes."""
    _, comma, expected = message.rpartition(_EXPECTED)
    if comma:
        return comma.removeprefix(", ") + expected
    message = message.partition(", found ")[0]
    return _QUOTED.sub("...", message)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif isinstance(value, str):
        yield value
