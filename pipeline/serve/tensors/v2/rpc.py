"""The messages of `inference.GRPCInferenceService` (specification/protocol/open_inference_grpc.proto)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from beam_score.pipeline.serve.tensors.protos import floats, message, packed
from beam_score.pipeline.serve.tensors.read_json import Refused, Tensors
from beam_score.pipeline.serve.tensors.v2.raw import datatype_of, dtype_of, from_raw, shape_of, to_raw
from beam_score.pipeline.serve.tensors.v2.rest import partial
from beam_score.transforms.model.proto_fields import Fields, message_classes

PACKAGE = "inference"

_TENSOR = [("name", 1, "string"), ("datatype", 2, "string"), ("shape", 3, "*int64")]
_PARAMETERS = "%InferParameter"
_NAMED = [("name", 1, "string"), ("version", 2, "string")]

FIELDS: Fields = {
    "ServerLiveRequest": [],
    "ServerLiveResponse": [("live", 1, "bool")],
    "ServerReadyRequest": [],
    "ServerReadyResponse": [("ready", 1, "bool")],
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": [("ready", 1, "bool")],
    "ServerMetadataRequest": [],
    "ServerMetadataResponse": [*_NAMED, ("extensions", 3, "*string")],
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse": [
        ("name", 1, "string"),
        ("versions", 2, "*string"),
        ("platform", 3, "string"),
        ("inputs", 4, "*TensorMetadata"),
        ("outputs", 5, "*TensorMetadata"),
    ],
    "TensorMetadata": _TENSOR,
    "ModelInferRequest": [
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("id", 3, "string"),
        ("parameters", 4, _PARAMETERS),
        ("inputs", 5, "*InferTensor"),
        ("outputs", 6, "*InferRequestedOutputTensor"),
        ("raw_input_contents", 7, "*bytes"),
    ],
    "InferTensor": [*_TENSOR, ("parameters", 4, _PARAMETERS), ("contents", 5, "InferTensorContents")],
    "InferRequestedOutputTensor": [("name", 1, "string"), ("parameters", 2, _PARAMETERS)],
    "ModelInferResponse": [
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("id", 3, "string"),
        ("parameters", 4, _PARAMETERS),
        ("outputs", 5, "*InferTensor"),
        ("raw_output_contents", 6, "*bytes"),
    ],
    "InferParameter": [
        ("bool_param", 1, "|bool"),
        ("int64_param", 2, "|int64"),
        ("string_param", 3, "|string"),
        ("double_param", 4, "|double"),
        ("uint64_param", 5, "|uint64"),
    ],
    "InferTensorContents": [
        ("bool_contents", 1, "*bool"),
        ("int_contents", 2, "*int32"),
        ("int64_contents", 3, "*int64"),
        ("uint_contents", 4, "*uint32"),
        ("uint64_contents", 5, "*uint64"),
        ("fp32_contents", 6, "*float"),
        ("fp64_contents", 7, "*double"),
        ("bytes_contents", 8, "*bytes"),
    ],
}

_CONTENTS = {
    "bool": "bool_contents",
    "int64": "int64_contents",
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
    "string": "bytes_contents",
    **dict.fromkeys(("int8", "int16", "int32"), "int_contents"),
    **dict.fromkeys(("uint8", "uint16", "uint32"), "uint_contents"),
}
"""dtype to the field with its values; float16 has none."""

_NUMBERS = {name: number for name, number, _ in FIELDS["InferTensorContents"]}


@functools.cache
def messages() -> Mapping[str, Any]:
    """Return the classes of all messages, by name."""
    return message_classes(FIELDS, PACKAGE)


def infer_request(body: bytes) -> tuple[str, Tensors]:
    """Return the signature that a ModelInferRequest names in `parameters`, or an empty text; and its tensors.

    Raises:
      Refused: with the input at fault.
    """
    try:
        request = messages()["ModelInferRequest"].FromString(body)
    except DecodeError:
        raise Refused("the request is not a ModelInferRequest") from None
    raw = request.raw_input_contents
    if raw and (len(raw) != len(request.inputs) or any(one.HasField("contents") for one in request.inputs)):
        raise Refused(f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs: expected one each, or contents")
    feeds: dict[str, np.ndarray] = {}
    for number, one in enumerate(request.inputs):
        place, shape = f"input {one.name[:100]!r}", list(one.shape)
        if not one.name or one.name in feeds:
            raise Refused(f"input {number}: expected a name, different from those of the other inputs")
        dtype, shape_ = dtype_of(place, one.datatype), shape_of(place, shape)
        feeds[one.name] = from_raw(place, raw[number], dtype, shape_) if raw else _typed(place, one, dtype, shape_)
    parameters = request.parameters
    return parameters["signature_name"].string_param if "signature_name" in parameters else "", Tensors(
        feeds,
        wanted=tuple(output.name for output in request.outputs),
        id=request.id or None,
        raw=None if raw else (),
        partial="on_error" in parameters and partial(parameters["on_error"].string_param),
    )


def _typed(place: str, one: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the typed contents of an input. Raises Refused."""
    if dtype not in _CONTENTS:
        raise Refused(f"{place}: FP16 needs raw_input_contents")
    field = getattr(one.contents, _CONTENTS[dtype])
    if len(field) != np.prod(shape, dtype=np.int64):
        raise Refused(f"{place}: {len(field)} values in {_CONTENTS[dtype]}, and its shape is {list(shape)}")
    if dtype == "string":
        texts = np.empty(len(field), object)
        texts[:] = field
        return texts.reshape(shape)
    if dtype in ("float32", "float64"):
        found = floats(one.contents, _NUMBERS[_CONTENTS[dtype]], len(field), dtype)
        if found is not None:
            return found.reshape(shape)
    wide = np.array(field, np.int64 if dtype.startswith(("int", "uint")) and dtype != "uint64" else dtype)
    values = wide.astype(dtype)
    if wide.dtype.kind == "i" and (values != wide).any():
        raise Refused(f"{place}: value {int(np.flatnonzero(values != wide)[0])} is out of range for {dtype}")
    return values.reshape(shape)


def infer_response(outputs: Mapping[str, np.ndarray], asked: Tensors, parameters: Mapping[str, Any]) -> bytes:
    """Return a ModelInferResponse without the model's name and version, which the front knows. Its tensors are raw if
    those of the request were, or if one is FP16, else typed.

    Args:
      asked: the request.
      parameters: of the response, texts and integers.
    """
    response = messages()["ModelInferResponse"](id=asked.id or "")
    for name, value in parameters.items():
        setattr(response.parameters[name], "string_param" if isinstance(value, str) else "int64_param", value)
    raw = asked.raw is None or any(array.dtype == np.float16 for array in outputs.values())
    for name, array in outputs.items():
        one = response.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        if raw:
            response.raw_output_contents.append(to_raw(array))
        elif array.dtype == object:
            one.contents.bytes_contents.extend(array.reshape(-1).tolist())
        else:
            number = _NUMBERS[_CONTENTS[array.dtype.name]]
            one.contents.MergeFromString(message(number, packed(array.reshape(-1))))
    return response.SerializeToString()
