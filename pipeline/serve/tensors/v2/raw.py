"""The datatypes of the Open Inference Protocol, and tensors as raw bytes: little-endian, without padding; each text is
preceded by its length, uint32 (Triton's binary tensor extension)."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_score.pipeline.serve.tensors.read_json import Refused

DATATYPES = {
    "bool": "BOOL",
    "string": "BYTES",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""dtype to the name of the protocol."""

_DTYPES = {name: dtype for dtype, name in DATATYPES.items()}
_LENGTH = struct.Struct("<I")


def dtype_of(place: str, datatype: str) -> str:
    """Return the dtype of a datatype. Raises Refused."""
    if datatype not in _DTYPES:
        raise Refused(f"{place}: expected a datatype, one of {', '.join(_DTYPES)}")
    return _DTYPES[datatype]


def datatype_of(array: np.ndarray) -> str:
    """Return the datatype of an array, whose strings are objects."""
    return DATATYPES["string" if array.dtype == object else str(array.dtype)]


def shape_of(place: str, shape: Any) -> tuple[int, ...]:
    """Return a shape. Raises Refused if it is not a list of sizes."""
    if not all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
        raise Refused(f"{place}: expected a shape, a list of sizes")
    return tuple(shape)


def from_raw(place: str, data: bytes, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """Return raw bytes as an array.

    Args:
      place: of the tensor, for messages.

    Raises:
      Refused: the bytes are more or fewer than those of the shape.
    """
    count = math.prod(shape)
    if dtype == "string":
        return _texts(place, data, count).reshape(shape)
    kind = np.dtype(dtype).newbyteorder("<")
    if len(data) != count * kind.itemsize:
        raise Refused(f"{place}: {len(data)} bytes of data, and its shape needs {count * kind.itemsize}")
    values = np.frombuffer(data, np.uint8) != 0 if dtype == "bool" else np.frombuffer(data, kind)
    return values.astype(dtype, copy=False).reshape(shape)


def _texts(place: str, data: bytes, count: int) -> np.ndarray:
    if count > len(data) // _LENGTH.size:
        raise Refused(f"{place}: its data end before text {len(data) // _LENGTH.size}")
    made, at = np.empty(count, object), 0
    for number in range(count):  # each length is known only once the text before it is
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(data, at)[0] if start <= len(data) else len(data) + 1
        if at > len(data):
            raise Refused(f"{place}: its data end within text {number}")
        made[number] = data[start:at]
    if at != len(data):
        raise Refused(f"{place}: {len(data) - at} bytes of data follow the last text")
    return made


def to_raw(array: np.ndarray) -> bytes:
    """Return an array as raw bytes."""
    if array.dtype == object:
        flat = array.reshape(-1).tolist()
        known = {text: _LENGTH.pack(len(text)) + text for text in set(flat)}
        return b"".join(map(known.__getitem__, flat))
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
