"""JSON text as TensorFlow Serving reads it: RapidJSON with kParseNanAndInf and kParseStopWhenDone.

Python's parser is made to differ where RapidJSON does (util/json_tensor.cc; goldens in tests/cases/serving.jsonl): of
a repeated key the first counts, `Inf` and `-NaN` are numbers, a number that no double can hold fails the document, and
text after the first value is not read. Strict mode refuses all of these: each loses a value, or is not JSON.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

_NUMBERS = re.compile(r'"(?:[^"\\]|\\.)*"|-?(?:NaN|Inf(?:inity)?)\b')
_DEEPEST = 1000


class BadJson(ValueError):
    """The text is refused. Args: a sentence that quotes no value."""


def parse(body: bytes, strict: bool) -> Any:
    """Return a JSON document as plain data; a 64-bit integer as int, any other number as float.

    Raises:
      BadJson: with the position, and without the text.
    """
    try:
        text = body.decode(errors="strict" if strict else "surrogateescape").removeprefix("" if strict else "\ufeff")
    except UnicodeDecodeError as error:
        raise BadJson(f"the body is not UTF-8 at byte {error.start}") from None
    decoder = _STRICT if strict else _LENIENT
    try:
        value, end = _decode(decoder, text)
    except BadJson:
        if strict or (respelled := _NUMBERS.sub(_respelled, text)) == text:
            raise
        value, end = _decode(decoder, respelled)
    if strict and text[end:].strip(" \t\r\n"):
        raise BadJson(f"JSON Parse error: text after the document at character {end}")
    return value


def _decode(decoder: json.JSONDecoder, text: str) -> tuple[Any, int]:
    start = len(text) - len(text.lstrip(" \t\r\n"))
    if start == len(text):
        raise BadJson("JSON Parse error: The document is empty")
    try:
        return decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise BadJson(f"JSON Parse error: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise BadJson(f"JSON Parse error: nested deeper than {_DEEPEST}") from None


def _respelled(found: re.Match[str]) -> str:
    token = found[0]
    if token[0] == '"':
        return token
    return "NaN" if token.endswith("NaN") else "-Infinity" if token[0] == "-" else "Infinity"


def _integer(text: str) -> int | float:
    # A text of thousands of digits is never converted to int.
    value = int(text) if len(text) <= 20 else None
    return value if value is not None and -(1 << 63) <= value < 1 << 64 else _float(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadJson("JSON Parse error: Number too big to be stored in double")
    return value


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadJson("JSON Parse error: an object has a key twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise BadJson(f"JSON Parse error: {text} is not JSON; --compat tfserving accepts it")


_LENIENT = json.JSONDecoder(object_pairs_hook=_first, parse_int=_integer, parse_float=_float)
_STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_int=_integer, parse_float=_float, parse_constant=_no_constant)
