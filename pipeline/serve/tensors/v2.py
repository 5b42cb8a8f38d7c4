"""Tensors in the JSON of the Open Inference Protocol, version 2 (specification/protocol/inference_rest.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from beam_score.pipeline.serve.tensors.read_json import Refused, Tensors, flat_values, values_of
from beam_score.transforms.rows.as_json import spelling

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


def infer_request(request: Mapping[str, Any]) -> tuple[str, Tensors]:
    """Return the signature that a request names in `parameters.signature_name`, or an empty text; and its tensors.

    Raises:
      Refused: with the input at fault.
    """
    parameters = request.get("parameters") or {}
    signature = parameters.get("signature_name", "") if isinstance(parameters, dict) else None
    if not isinstance(signature, str):
        raise Refused('"parameters" must be an object, and its "signature_name" a string')
    inputs, outputs = request.get("inputs"), request.get("outputs", [])
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise Refused('"inputs" must be a list of tensors')
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise Refused('"outputs" must be a list of objects with a name')
    feeds: dict[str, np.ndarray] = {}
    for number, one in enumerate(inputs):
        name = one.get("name")
        if not isinstance(name, str) or name in feeds:
            raise Refused(f"input {number}: expected a name, different from those of the other inputs")
        feeds[name] = _tensor(name, one)
    id_ = request.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise Refused('"id" must be a string')
    return signature, Tensors(feeds, wanted=tuple(str(one.get("name")) for one in outputs), id=id_)


def _tensor(name: str, one: Mapping[str, Any]) -> np.ndarray:
    place, shape = f"input {name[:100]!r}", one.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
        raise Refused(f"{place}: expected a shape, a list of sizes")
    dtype = _DTYPES.get(str(one.get("datatype")))
    if dtype is None:
        raise Refused(f"{place}: expected a datatype, one of {', '.join(_DTYPES)}")
    found, values = flat_values(place, one.get("data"))
    if len(values) != math.prod(shape) or found not in (tuple(shape), (len(values),)):
        raise Refused(f"{place}: {len(values)} values of shape {list(found)}, and its shape is {shape}")
    return values_of(place, values, dtype).reshape(shape)


def infer_response(outputs: Mapping[str, np.ndarray], id_: str | None) -> bytes:
    """Return a response without the model's name and version, which the front knows. Numbers that JSON does not have
    are the texts NaN, Infinity and -Infinity; bytes that are not UTF-8 are refused.

    Raises:
      Refused: a text is not UTF-8.
    """
    made = [
        {"name": name, "shape": list(array.shape), "datatype": DATATYPES[_dtype(array)], "data": _data(name, array)}
        for name, array in outputs.items()
    ]
    response = {"outputs": made} if id_ is None else {"id": id_, "outputs": made}
    return orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)


def _dtype(array: np.ndarray) -> str:
    return "string" if array.dtype == object else str(array.dtype)


def _data(name: str, array: np.ndarray) -> Any:
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype == object:
        try:
            return [value.decode() for value in flat.tolist()]
        except UnicodeDecodeError:
            raise Refused(f"output {name!r} is not text, which JSON would need") from None
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        return [value if math.isfinite(value) else spelling(value) for value in flat.tolist()]
    return flat
