"""Output tensors as the JSON of a predict answer.

By MakeJsonFromTensors of util/json_tensor.cc: `predictions` for row form, `outputs` for column form; one output is
written bare, several as objects; a string output whose name ends in `_bytes` as `{"b64": ...}`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from beam_score.pipeline.serve.tensors.read_json import Refused

_INDENT = "    "


def predictions(outputs: Mapping[str, np.ndarray]) -> str:
    """Return the answer to a request in row form. Raises Refused if the outputs have no common first dimension."""
    sizes = {}
    for name, array in outputs.items():
        if not array.ndim:
            raise Refused(f"Tensor name: {name} has no shape information")
        sizes[name] = len(array)
    batch = next(iter(sizes.values()))
    for name, size in sizes.items():
        if size != batch:
            raise Refused(f"Tensor name: {name} has inconsistent batch size: {size} expecting: {batch}")
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        rows: Iterable[str] = _elements(name, array, 3)
    else:
        columns = [[f'"{name}": {text}' for text in _elements(name, array, 3)] for name, array in outputs.items()]
        pad = _INDENT * 3
        items = (pad + (",\n" + pad).join(row) for row in zip(*columns, strict=True))
        rows = ("{\n" + row + "\n" + _INDENT * 2 + "}" for row in items)
    return '{\n    "predictions": [' + ", ".join(rows) + "\n    ]\n}"


def outputs(found: Mapping[str, np.ndarray]) -> str:
    """Return the answer to a request in column form."""
    if len(found) == 1:
        ((name, array),) = found.items()
        return '{\n    "outputs": ' + _pretty(name, array, 2) + "\n}"
    items = (f'{_INDENT * 2}"{name}": ' + _pretty(name, array, 3) for name, array in found.items())
    return '{\n    "outputs": {\n' + ",\n".join(items) + "\n    }\n}"


def _elements(name: str, array: np.ndarray, depth: int) -> Iterator[str]:
    """Yield the rows, nested lists on one line."""
    texts = _texts(name, array, depth)
    per_row = texts.size // len(array) if len(array) else 0
    if array.ndim == 1:
        yield from texts.tolist()
        return
    for row in range(len(array)):
        yield _one_line(texts[row * per_row : (row + 1) * per_row].tolist(), array.shape[1:])


def _one_line(texts: list[str], shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return "[" + ", ".join(texts) + "]"
    each = len(texts) // shape[0] if shape[0] else 0
    return "[" + ", ".join(_one_line(texts[i * each : (i + 1) * each], shape[1:]) for i in range(shape[0])) + "]"


def _pretty(name: str, array: np.ndarray, depth: int) -> str:
    """Return an array with a line for each value."""

    def nested(texts: list[str], shape: tuple[int, ...], depth: int) -> str:
        if not shape:
            return texts[0]
        if not shape[0]:
            return "[]"
        each, pad = len(texts) // shape[0], _INDENT * depth
        items = (nested(texts[i * each : (i + 1) * each], shape[1:], depth + 1) for i in range(shape[0]))
        return "[\n" + pad + (",\n" + pad).join(items) + "\n" + _INDENT * (depth - 1) + "]"

    return nested(_texts(name, array, depth).tolist(), array.shape, depth)


def _texts(name: str, array: np.ndarray, depth: int) -> np.ndarray:
    """Return each value as JSON text: an object array, in order."""
    flat = array.reshape(-1)
    if flat.dtype.kind == "f":
        return decimal(flat)
    if flat.dtype.kind == "b":
        return np.where(flat, "true", "false").astype(object)
    if flat.dtype.kind in "iu":
        return flat.astype(str).astype(object)
    made = np.empty(flat.size, object)
    if name.endswith("_bytes"):
        pad = _INDENT * depth
        made[:] = [f'{{\n{pad}"b64": "{base64.b64encode(v).decode()}"\n{pad[len(_INDENT) :]}}}' for v in flat]
    else:
        made[:] = [quoted(v) for v in flat]
    return made


def decimal(values: np.ndarray) -> np.ndarray:
    """Return floats as text by WriteDecimal: `%g` if it reads back the same, else `%.9g` (float32) or `%.17g`; with
    `.0` if there is neither a point nor an exponent."""
    wide = values.astype(np.float64)
    single = values.dtype != np.float64
    texts = np.char.mod("%g", wide)
    finite = np.isfinite(wide)
    with np.errstate(all="ignore"):
        back = texts.astype(np.float64)
    same = (back.astype(np.float32) == values.astype(np.float32)) if single else (back == wide)
    longer = finite & ~same
    made = texts.astype(object)
    if longer.any():
        made[longer] = np.char.mod("%.9g" if single else "%.17g", wide[longer])
    made[np.isnan(wide)], made[wide == np.inf], made[wide == -np.inf] = "NaN", "Infinity", "-Infinity"
    whole = [number for number in np.flatnonzero(finite).tolist() if not _MARKED.search(made[number])]
    made[whole] = [made[number] + ".0" for number in whole]
    return made


_MARKED = re.compile(r"[.e]")
_ESCAPED = re.compile(r'[\x00-\x1f"\\]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quoted(value: bytes) -> str:
    """Return a text as JSON, its bytes that are not UTF-8 as they are."""
    text = value.decode(errors="surrogateescape")
    return '"' + _ESCAPED.sub(lambda m: _SHORT.get(m[0], f"\\u{ord(m[0]):04X}"), text) + '"'


def as_bytes(text: str) -> bytes:
    """Return an answer as it is sent: a string that is not UTF-8 as its own bytes, as TensorFlow Serving does."""
    return text.encode(errors="surrogateescape")
