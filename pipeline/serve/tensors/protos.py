"""Tensors as `TensorProto` (tensorflow/core/framework/tensor.proto), and back, as `tf.make_ndarray` does.

Whole arrays are copied: a repeated field of floats is packed, so its bytes are those of the array.
"""

from __future__ import annotations

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

_PACKED = {"float32": 5, "float64": 6}
"""dtype to the number of a field whose packed bytes are those of an array."""


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
        field = getattr(proto, _FIELDS[dtype])
        halves = dtype in ("float16", "bfloat16")
        stored = np.uint16 if halves else np.int64 if _FIELDS[dtype] == "int_val" else dtype
        values = np.fromiter(field, stored, len(field))
        values = values.view(np.float16) if dtype == "float16" else values if halves else values.astype(dtype)
    if len(values) > size:
        raise Refused(f"tensor parsing error: {name}")
    if dtype == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return _filled(values, size).reshape(shape)


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    """Return the values, the last one repeated up to the size; none at all are zeros."""
    if len(values) == size:
        return values
    if not len(values):
        return np.full(size, b"", object) if values.dtype == object else np.zeros(size, values.dtype)
    return np.concatenate([values, np.repeat(values[-1:], size - len(values))])


def to_proto(array: np.ndarray, proto: Any | None = None) -> Any:
    """Return an array as a tensor, its values in typed fields.

    Args:
      proto: an empty one to fill.
    """
    made = tensor_proto()() if proto is None else proto
    dtype = "string" if array.dtype == object else str(array.dtype)
    made.dtype = DTYPES.index(dtype)
    for size in array.shape:
        made.tensor_shape.dim.add().size = size
    flat = array.reshape(-1)
    if dtype in _PACKED:
        content = np.ascontiguousarray(flat).tobytes()
        if content:
            made.MergeFromString(_varint(_PACKED[dtype] << 3 | 2) + _varint(len(content)) + content)
    elif dtype == "float16":
        made.half_val.extend(flat.view(np.uint16).tolist())
    else:
        getattr(made, _FIELDS[dtype]).extend(flat.tolist())
    return made


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)
