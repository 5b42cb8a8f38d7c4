"""Tensors in the JSON of the Open Inference Protocol, version 2 (specification/protocol/inference_rest.md), and, after
the JSON, as raw bytes (Triton's binary tensor extension)."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from beam_score.pipeline.serve.tensors.read_json import Refused, Tensors, document, flat_values, values_of
from beam_score.pipeline.serve.tensors.v2.raw import datatype_of, dtype_of, from_raw, shape_of, to_raw
from beam_score.transforms.rows.as_json import spelling

_LENGTH = struct.Struct("<I")


def infer_request(body: bytes, length: int) -> tuple[str, Tensors]:
    """Return the signature that a request names in `parameters.signature_name`, or an empty text; and its tensors.

    Args:
      length: of its JSON; the rest is raw data.

    Raises:
      Refused: with the input at fault.
    """
    if length > len(body):
        raise Refused("Inference-Header-Content-Length is more than the bytes of the body")
    request = document(body[:length], strict=True)
    parameters = _parameters("the request", request)
    signature = parameters.get("signature_name", "")
    if not isinstance(signature, str):
        raise Refused('"parameters": its "signature_name" must be a string')
    inputs, outputs = request.get("inputs"), request.get("outputs", [])
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise Refused('"inputs" must be a list of tensors')
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise Refused('"outputs" must be a list of objects with a name')
    feeds: dict[str, np.ndarray] = {}
    at = length
    for number, one in enumerate(inputs):
        name = one.get("name")
        if not isinstance(name, str) or name in feeds:
            raise Refused(f"input {number}: expected a name, different from those of the other inputs")
        place = f"input {name[:100]!r}"
        size = _parameters(place, one).get("binary_data_size")
        if size is None:
            feeds[name] = _tensor(place, one)
            continue
        if type(size) is not int or not 0 <= size <= len(body) - at or "data" in one:
            raise Refused(f"{place}: binary_data_size must be a number of bytes that follow the JSON, without data")
        dtype, shape = dtype_of(place, str(one.get("datatype"))), _shape(place, one)
        feeds[name] = from_raw(place, body[at : at + size], dtype, shape)
        at += size
    if at != len(body):
        raise Refused(f"{len(body) - at} bytes of binary data belong to no input: binary_data_size gives their number")
    id_ = request.get("id")
    if id_ is not None and not isinstance(id_, str):
        raise Refused('"id" must be a string')
    raw = parameters.get("binary_data_output") is True
    wanted = {str(one.get("name")): _parameters("an output", one).get("binary_data", raw) is True for one in outputs}
    return signature, Tensors(
        feeds,
        wanted=tuple(str(one.get("name")) for one in outputs),
        id=id_,
        raw=None if raw and not wanted else tuple(name for name in wanted if wanted[name]),
        partial=partial(parameters.get("on_error")),
    )


def partial(on_error: Any) -> bool:
    """Return whether `parameters.on_error` asks for the good rows. Raises Refused."""
    if on_error not in (None, "", "row", "request"):
        raise Refused('"parameters": its "on_error" must be "row" or "request"')
    return bool(on_error == "row")


def _parameters(place: str, of: Mapping[str, Any]) -> Mapping[str, Any]:
    found = of.get("parameters") or {}
    if not isinstance(found, dict):
        raise Refused(f'{place}: "parameters" must be an object')
    return found


def _shape(place: str, one: Mapping[str, Any]) -> tuple[int, ...]:
    shape = one.get("shape")
    return shape_of(place, shape if isinstance(shape, list) else [None])


def _tensor(place: str, one: Mapping[str, Any]) -> np.ndarray:
    shape = _shape(place, one)
    dtype = dtype_of(place, str(one.get("datatype")))
    found, values = flat_values(place, one.get("data"))
    if len(values) != math.prod(shape) or found not in (shape, (len(values),)):
        raise Refused(f"{place}: {len(values)} values of shape {list(found)}, and its shape is {list(shape)}")
    return values_of(place, values, dtype).reshape(shape)


def infer_response(outputs: Mapping[str, np.ndarray], asked: Tensors, parameters: Mapping[str, Any]) -> bytes:
    """Return a response without the model's name and version, which the front knows: the length of its JSON (uint32),
    its JSON, and the raw data. Numbers that JSON does not have are the texts NaN, Infinity and -Infinity.

    Args:
      asked: the request.
      parameters: of the response.

    Raises:
      Refused: a text is not UTF-8, which JSON would need.
    """
    made: list[dict[str, Any]] = []
    data: list[bytes] = []
    for name, array in outputs.items():
        one: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype_of(array)}
        if asked.raw is None or name in asked.raw:
            data.append(to_raw(array))
            one["parameters"] = {"binary_data_size": len(data[-1])}
        else:
            one["data"] = _data(name, array)
        made.append(one)
    response: dict[str, Any] = {} if asked.id is None else {"id": asked.id}
    if parameters:
        response["parameters"] = parameters
    text = orjson.dumps({**response, "outputs": made}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([_LENGTH.pack(len(text)), text, *data])


def cut(body: bytes) -> tuple[bytes, bytes]:
    """Return the JSON and the raw data of what `infer_response` returns."""
    end = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    return body[_LENGTH.size : end], body[end:]


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
