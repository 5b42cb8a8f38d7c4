"""Tensors as `TensorProto` (tensorflow/core/framework/tensor.proto), and back, as `tf.make_ndarray` does.

Whole arrays are copied: the values of a packed field of floats are the bytes of the array.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from beam_score.pipeline.serve.tensors.read_json import Refused
from beam_score.pipeline.serve.tensors.stubs import tensor_proto
from beam_score.transforms.model.signature import DTYPES

_MOST_VALUES = 1 << 31

_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "uint64": "uint64_val",
    "uint32": "uint32_val",
    "bool": "bool_val",
    "string": "string_val",
    **dict.fromkeys(("int8", "int16", "int32", "uint8", "uint16"), "int_val"),
    **dict.fromkeys(("float16", "bfloat16"), "half_val"),
}
"""dtype to the field with its values."""

_NUMBERS = {
    "half_val": 13,
    "float_val": 5,
    "double_val": 6,
    "int_val": 7,
    "string_val": 8,
    "int64_val": 10,
    "bool_val": 11,
    "uint32_val": 16,
    "uint64_val": 17,
}
"""The numbers of these fields."""


def to_array(name: str, proto: Any) -> np.ndarray:
    """Return the array of a tensor: float32 for bfloat16, an object array of bytes for strings.

    Raises:
      Refused: the tensor contradicts itself, or has a dtype that cannot be fed.
    """
    dtype = DTYPES[proto.dtype] if 0 <= proto.dtype < len(DTYPES) else ""
    if dtype not in _FIELDS:
        raise Refused(f"input {name!r}: dtype {proto.dtype} is not supported")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape) or math.prod(shape) > _MOST_VALUES:
        raise Refused(f"tensor parsing error: {name}")
    size = math.prod(shape)
    if dtype == "string":
        values = np.empty(len(proto.string_val), object)
        values[:] = proto.string_val
    elif proto.tensor_content:
        kind = np.dtype("uint16" if dtype == "bfloat16" else dtype)
        if len(proto.tensor_content) != size * kind.itemsize:
            raise Refused(f"tensor parsing error: {name}")
        values = np.frombuffer(proto.tensor_content, kind)
    else:
        values = _typed(proto, dtype)
    if len(values) > size:
        raise Refused(f"tensor parsing error: {name}")
    if dtype == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return _filled(values, size).reshape(shape)


def _typed(proto: Any, dtype: str) -> np.ndarray:
    """Return the numbers in the typed field of a tensor, as uint16 for bfloat16."""
    field = getattr(proto, _FIELDS[dtype])
    if dtype in ("float32", "float64"):
        found = floats(proto, _NUMBERS[_FIELDS[dtype]], len(field), dtype)
        if found is not None:
            return found
    halves = dtype in ("float16", "bfloat16")
    stored = np.uint16 if halves else np.int64 if _FIELDS[dtype] == "int_val" else dtype
    values = np.fromiter(field, stored, len(field))
    return values.view(np.float16) if dtype == "float16" else values if halves else values.astype(dtype)


def floats(proto: Any, number: int, count: int, dtype: str) -> np.ndarray | None:
    """Return the floats of a message without an object for each; None if they are not its last field.

    Args:
      number: of their field.
      count: of the floats.
      dtype: float32 or float64.
    """
    if not count:
        return None
    size = count * np.dtype(dtype).itemsize
    head, data = varint(number << 3 | 2) + varint(size), proto.SerializeToString()
    return np.frombuffer(data, dtype, offset=len(data) - size) if data[-size - len(head) : -size] == head else None


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    """Return the values, the last one repeated up to the size; none at all are zeros."""
    if len(values) == size:
        return values
    if not len(values):
        return np.full(size, b"", object) if values.dtype == object else np.zeros(size, values.dtype)
    return np.concatenate([values, np.repeat(values[-1:], size - len(values))])


def encoded(array: np.ndarray) -> bytes:
    """Return an array as an encoded tensor, its values in typed fields.

    Numbers are written here: protobuf would take each as an object.
    """
    flat = array.reshape(-1)
    if array.dtype == object:
        head, values = _STRING, tensor_proto()(string_val=flat.tolist()).SerializeToString()
    else:
        head, number = _HEADS[array.dtype]
        values = message(number, packed(flat.view(np.uint16) if array.dtype == np.float16 else flat))
    shape = b"".join([message(2, b"\x08" + varint(size)) for size in array.shape])
    return b"%b%b%b" % (head, message(2, shape), values)


def message(number: int, content: bytes) -> bytes:
    """Return a field of a message: a message, a text, or packed numbers."""
    return b"%b%b%b" % (varint(number << 3 | 2), varint(len(content)), content)


def packed(flat: np.ndarray) -> bytes:
    """Return numbers as they are in a packed field: floats as they are, others as varints."""
    if flat.dtype.kind == "f":
        return flat.tobytes()
    wide = flat.astype(np.int64 if flat.dtype.kind == "i" else np.uint64, copy=False).view(np.uint64)
    if np.maximum.reduce(wide, initial=0) < 0x80:
        return wide.astype(np.uint8).tobytes()
    left = wide[:, None] >> _SHIFTS
    used = left != 0
    used[:, 0] = True
    return (left & 0x7F | (left > 0x7F) * np.uint64(0x80)).astype(np.uint8)[used].tobytes()


_SHIFTS = np.arange(0, 64, 7, dtype=np.uint64)


@functools.lru_cache(1024)
def varint(number: int) -> bytes:
    """Return a number as a varint."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


_STRING = b"\x08" + varint(DTYPES.index("string"))
_HEADS = {
    np.dtype(dtype): (b"\x08" + varint(DTYPES.index(dtype)), _NUMBERS[field])
    for dtype, field in _FIELDS.items()
    if dtype not in ("string", "bfloat16")
}
"""dtype to the first field of a tensor, and the number of that with its values."""
