"""The tensors of a predict request in JSON, in row form (`instances`) or in column form (`inputs`).

By util/json_tensor.cc of TensorFlow Serving. Messages name the place, and never quote the data.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beam_score.pipeline.serve.tensors.json_text import BadJson, parse
from beam_score.transforms.model.signature import Tensor

_READ = {
    **dict.fromkeys(("int8", "int16", "uint8"), np.int32),  # put in int_val, and cast when the tensor is made
    "int32": np.int32,
    "uint32": np.uint32,
    "int64": np.int64,
    "uint64": np.uint64,
    "float32": np.float32,
    "float64": np.float64,
    "bool": np.bool_,
    "string": np.object_,
}
"""dtype of an input to that in which its values are read."""


class Refused(ValueError):
    """A request that is refused.

    Attributes:
      status: of HTTP: 400; 413 for too many rows, 415 for another form, 501 for what is not supported.
      faults: with `index`, `column`, `reason` and `message`, if it is refused for columns of the contract.
    """

    def __init__(self, message: str, status: int = 400, faults: Sequence[Mapping[str, Any]] = ()):
        super().__init__(message)
        self.status, self.faults = status, faults


def check_rows(rows: int, most_rows: int) -> None:
    """Raise Refused if a request has too many rows."""
    if rows > most_rows:
        raise Refused(f"{rows:,} rows, more than serve.limits.rows {most_rows:,}", 413)


@dataclasses.dataclass(frozen=True)
class Tensors:
    """The tensors of a request.

    Attributes:
      feeds: by input name.
      rows: whether it is in row form.
      wanted: the outputs that are asked for; none for all.
      id: to be repeated in the answer.
      raw: the outputs that are written as raw bytes; None for all.
      partial: whether the good rows are predicted if others are refused.
      method: CLASSIFY or REGRESS, if the answer is a result and not tensors.
    """

    feeds: dict[str, np.ndarray]
    rows: bool = False
    wanted: tuple[str, ...] = ()
    id: str | None = None
    raw: tuple[str, ...] | None = ()
    partial: bool = False
    method: str | None = None


def document(body: bytes, strict: bool) -> dict[str, Any]:
    """Return the JSON object of a request. Raises Refused."""
    try:
        found = parse(body, strict)
    except BadJson as error:
        raise Refused(str(error)) from None
    if not isinstance(found, dict):
        raise Refused("Request body must be a JSON object")
    return found


def signature_name(request: Mapping[str, Any]) -> str | None:
    """Return the signature that a request names. Raises Refused."""
    name = request.get("signature_name")
    if name is None and "signature_name" not in request:
        return None
    if not isinstance(name, str):
        raise Refused("'signature_name' key must be a string value.")
    return name


def tensors(request: Mapping[str, Any], inputs: Mapping[str, Tensor], strict: bool) -> Tensors:
    """Return the tensors of a request.

    Args:
      inputs: of the signature.
      strict: whether a value that the dtype cannot hold is refused, not wrapped or made infinite.

    Raises:
      Refused: with the place of the first fault.
    """
    if "instances" in request and "inputs" in request:
        raise Refused("Request must have either 'instances' or 'inputs', expecting only one of them")
    if "instances" in request:
        return Tensors(_rows(request["instances"], inputs, strict), True)
    if "inputs" in request:
        return Tensors(_columns(request["inputs"], inputs, strict), False)
    raise Refused("Missing 'inputs' or 'instances' key")


def _rows(instances: Any, inputs: Mapping[str, Tensor], strict: bool) -> dict[str, np.ndarray]:
    if not isinstance(instances, list) or not instances:
        raise Refused("Excepting 'instances' to be a list with at least one element")
    if not isinstance(instances[0], dict) or is_bytes(instances[0]):
        if len(inputs) != 1:
            raise Refused("instances is a plain list, but expecting list of objects as multiple inputs are required")
        for number, instance in enumerate(instances):
            if isinstance(instance, dict) and not is_bytes(instance):
                raise Refused(f"Expecting value/list but got object at item {number}")
        ((name, tensor),) = inputs.items()
        return {name: _tensor(name, tensor, instances, strict, rows=True)}
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict):
            raise Refused(f"Expecting object but got value/list at item {number}")
        if is_bytes(instance) and "b64" not in inputs:
            raise Refused(f"Expecting object but got value/list at item {number}")
        if instance.keys() != inputs.keys():
            listed = ",".join(sorted(inputs))
            raise Refused(f"Failed to process element: {number}: its keys must be equal to: {listed}")
    return {
        name: _tensor(name, tensor, list(map(operator.itemgetter(name), instances)), strict, rows=True)
        for name, tensor in inputs.items()
    }


def _columns(values: Any, inputs: Mapping[str, Tensor], strict: bool) -> dict[str, np.ndarray]:
    if not isinstance(values, dict) or is_bytes(values):
        if len(inputs) != 1:
            raise Refused("inputs is a plain value/list, but expecting an object as multiple tensors are required")
        ((name, tensor),) = inputs.items()
        return {name: _tensor(name, tensor, values, strict, rows=False)}
    if missing := [name for name in inputs if name not in values]:
        raise Refused(f"Missing named input: {missing[0]} in 'inputs' object.")
    if strict and (surplus := [name for name in values if name not in inputs]):
        raise Refused(
            f"'inputs' has a name that the signature does not: expected {','.join(sorted(inputs))}; {len(surplus)} more"
        )
    return {name: _tensor(name, tensor, values[name], strict, rows=False) for name, tensor in inputs.items()}


def _tensor(name: str, tensor: Tensor, value: Any, strict: bool, rows: bool) -> np.ndarray:
    """Return nested lists as an array."""
    place = f"input {name!r}"
    dtype = _READ.get(tensor.dtype)
    shape, flat = flat_values(place, value)
    if dtype is None:
        if not flat:
            return np.zeros(shape, np.float32)
        status = 400 if rows or isinstance(flat[0], dict) else 501
        raise Refused(f"{place}: Conversion of JSON Value to type: {tensor.dtype} is not supported", status)
    if strict:
        made = values_of(place, flat, tensor.dtype)
    else:
        made = _values(place, flat, dtype, tensor.dtype)
        made = made if tensor.dtype == "string" else made.astype(tensor.dtype, copy=False)
    return made.reshape(shape)


def values_of(place: str, flat: list[Any], dtype: str) -> np.ndarray:
    """Return single values as an array of a dtype: of bytes objects for strings.

    Raises:
      Refused: the dtype cannot hold a value.
    """
    if dtype == "string":
        return _values(place, flat, np.object_, dtype)
    kind = np.dtype(dtype).kind
    wide = _values(place, flat, {"f": np.float64, "i": np.int64, "u": np.uint64, "b": np.bool_}[kind], dtype)
    with np.errstate(over="ignore", under="ignore"):
        made = wide.astype(dtype)
    lost = np.isinf(made) & np.isfinite(wide) if kind == "f" else made != wide
    if lost.any():
        raise Refused(f"{place}: value {int(np.flatnonzero(lost)[0])} is out of range for {dtype}")
    return made


def flat_values(place: str, value: Any) -> tuple[tuple[int, ...], list[Any]]:
    """Return the shape of nested lists, and their values in order. Raises Refused if they are not of one shape."""
    shape: list[int] = []
    level: list[Any] = [value]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if not all(map(list.__instancecheck__, level)):
            raise Refused(f"{place}: a value found at incorrect level {len(shape)}: expected lists")
        if any(map(size.__ne__, map(len, level))):
            raise Refused(f"{place}: Encountered list at unexpected size, at level: {len(shape)} expected size: {size}")
        shape.append(size)
        level = [item for items in level for item in items] if len(level) > 1 else level[0]
    if any(isinstance(item, list) for item in level):
        raise Refused(f"{place}: a list found at incorrect level {len(shape)}: expected values")
    return tuple(shape), level


def _values(place: str, flat: list[Any], dtype: Any, named: str) -> np.ndarray:
    if dtype is np.object_:
        made = np.empty(len(flat), object)
        made[:] = [bytes_of(place, number, item) for number, item in enumerate(flat)]
        return made
    kinds = set(map(type, flat))
    is_float = dtype in (np.float32, np.float64)
    allowed = {bool} if dtype is np.bool_ else {int, float} if is_float else {int}
    if not kinds <= allowed:
        at = next(number for number, item in enumerate(flat) if type(item) not in allowed)
        raise Refused(f"{place}: value {at} is not of expected type: {named}")
    if is_float:
        with np.errstate(over="ignore", under="ignore"):
            return np.array(flat, np.float64).astype(dtype)
    try:
        return np.array(flat, dtype)
    except OverflowError:
        info = np.iinfo(dtype)
        at = next(number for number, item in enumerate(flat) if not info.min <= item <= info.max)
        raise Refused(f"{place}: value {at} is out of range for {named}") from None


def bytes_of(place: str, number: int, item: Any) -> bytes:
    """Return the bytes of a text, or of an object with the key `b64`. Raises Refused."""
    if isinstance(item, str):
        try:
            return item.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raise Refused(f"{place}: value {number} has half of a surrogate pair") from None
    if is_bytes(item):
        try:
            return _base64(item["b64"])
        except (binascii.Error, ValueError):
            raise Refused(f"{place}: value {number}: Unable to base64 decode") from None
    raise Refused(f"{place}: value {number} is not of expected type: string")


def is_bytes(value: Any) -> bool:
    """Return whether a JSON value is an object with the only key `b64`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _base64(text: str) -> bytes:
    # The standard alphabet, with or without padding.
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
