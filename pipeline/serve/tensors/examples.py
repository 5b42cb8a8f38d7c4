"""The tf.Examples of classify and regress requests, in JSON (util/json_tensor.cc) and as messages (apis/input.proto).

Messages are not taken apart: an embedded message looks like a field of bytes, and an Example that is preceded by the
context is one message with the features of both.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError, Message

from beam_score.pipeline.serve.tensors.read_json import Refused, bytes_of, is_bytes
from beam_score.pipeline.serve.tensors.stubs import messages
from beam_score.transforms.model.proto_fields import message_class
from beam_score.transforms.model.signature import DEFAULT_SIGNATURE, Signature

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
"""Method names of signatures."""

METHODS = {"classify": CLASSIFY, "regress": REGRESS}
"""Method names of signatures, by the name of the method in a path."""

_INPUT = "inputs"
_LARGEST = float(np.finfo(np.float32).max)

_OUTPUTS = {CLASSIFY: ("classes", "scores"), REGRESS: ("outputs",)}
"""Names of outputs, by the method."""

_FIELDS = {
    "Request": [("model_spec", 1, "ModelSpec"), ("input", 2, "Input")],
    "MultiRequest": [("tasks", 1, "*Task"), ("input", 2, "Input")],
    "Task": [("model_spec", 1, "ModelSpec"), ("method_name", 2, "string")],
    "ModelSpec": [("signature_name", 3, "string")],
    "Input": [("example_list", 1, "Examples"), ("example_list_with_context", 2, "Examples")],
    "Examples": [("examples", 1, "*bytes"), ("context", 2, "bytes")],
}


@dataclasses.dataclass(frozen=True)
class Task:
    """A signature to call with the examples of a request.

    Attributes:
      signature: its name.
      method: CLASSIFY or REGRESS.
    """

    signature: str
    method: str


def check_signature(signature: Signature, method: str) -> None:
    """Raise Refused if a signature is not for a method (classifier.cc, regressor.cc of TensorFlow Serving)."""
    kind = "classification" if method == CLASSIFY else "regression"
    if signature.method_name != method:
        found = signature.method_name
        raise Refused(f"Expected {kind} signature method_name to be {method}. Was: {found}")
    if len(signature.inputs) != 1:
        raise Refused("Expected one input Tensor.")
    if _INPUT not in signature.inputs:
        raise Refused(f"No {kind} inputs found in SignatureDef: expected the input {_INPUT!r}")
    known = _OUTPUTS[method]
    if not set(signature.outputs) <= set(known):
        raise Refused(f"No {kind} outputs found in SignatureDef: expected {' or '.join(map(repr, known))}")


def json_request(request: Mapping[str, Any], strict: bool) -> dict[str, np.ndarray]:
    """Return the examples of a classify or regress request in JSON, serialized, as the input of a signature.

    Args:
      strict: whether a number that is not finite as float32 is refused.

    Raises:
      Refused: with the place of the first fault.
    """
    examples = request.get("examples")
    if not isinstance(examples, list) or not examples:
        raise Refused("Key 'examples' is expected, and must be a list with at least one element")
    list_ = messages("input_pb2").ExampleList()
    context = b""
    if "context" in request:
        place = list_.examples.add()
        _fill(place, request["context"], "'context'", strict)
        context = place.SerializeToString()
        del list_.examples[:]
    for number, example in enumerate(examples):
        _fill(list_.examples.add(), example, f"example {number}", strict)
    return _feeds([context + example.SerializeToString() for example in list_.examples])


def _fill(example: Any, features: Any, place: str, strict: bool) -> None:
    if not isinstance(features, dict):
        raise Refused(f"{place}: expected an object of features")
    made = example.features.feature
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        feature, where = made[name], f"{place}: feature {name[:100]!r}"
        kinds = {_kind(item) for item in values}
        if len(kinds) > 1 or None in kinds:
            raise Refused(f"{where}: expected a number, a text, or a list of either, all of one type")
        (kind,) = kinds or {""}
        try:
            if kind == "int":
                feature.int64_list.value.extend(map(int, values))
            elif kind == "float":
                if strict and any(math.isfinite(item) and abs(item) > _LARGEST for item in values):
                    raise Refused(f"{where}: a value is out of range for float32")
                feature.float_list.value.extend(values)
            elif kind == "bytes":
                feature.bytes_list.value.extend(bytes_of(where, n, item) for n, item in enumerate(values))
        except ValueError as error:
            if isinstance(error, Refused):
                raise
            raise Refused(f"{where}: a value is out of range for int64") from None


def _kind(item: Any) -> str | None:
    """Return the kind of a value: `int` also for booleans; None if there is none."""
    if isinstance(item, int):
        return "int"
    return "float" if isinstance(item, float) else "bytes" if isinstance(item, str) or is_bytes(item) else None


def proto_request(body: bytes, method: str) -> tuple[Task, dict[str, np.ndarray]]:
    """Return the task of a ClassificationRequest or a RegressionRequest, and its examples. Raises Refused."""
    request = _parsed("Request", body)
    return Task(request.model_spec.signature_name or DEFAULT_SIGNATURE, method), _examples(request.input)


def multi_request(body: bytes) -> tuple[list[Task], dict[str, np.ndarray]]:
    """Return the tasks of a MultiInferenceRequest, and its examples. Raises Refused."""
    request = _parsed("MultiRequest", body)
    tasks = [Task(task.model_spec.signature_name or DEFAULT_SIGNATURE, task.method_name) for task in request.tasks]
    for number, task in enumerate(tasks):
        if task.method not in _OUTPUTS:
            raise Refused(f"Unsupported signature method_name: {task.method[:100]}", 501)
        if task.signature in {earlier.signature for earlier in tasks[:number]}:
            raise Refused(f"Duplicate evaluation of signature: {task.signature[:100]}")
    return tasks, _examples(request.input)


def _examples(input_: Any) -> dict[str, np.ndarray]:
    listed = input_.example_list_with_context if input_.HasField("example_list_with_context") else input_.example_list
    if not listed.examples:
        raise Refused("Input is empty.")
    return _feeds([listed.context + example for example in listed.examples] if listed.context else listed.examples)


def _feeds(examples: Any) -> dict[str, np.ndarray]:
    made = np.empty(len(examples), object)
    made[:] = examples
    return {_INPUT: made}


def _parsed(name: str, body: bytes) -> Any:
    try:
        return _class(name).FromString(body)
    except DecodeError:
        raise Refused("the request is damaged") from None


@functools.cache
def _class(name: str) -> type[Message]:
    return message_class(name, _FIELDS, f"beam_score.examples.{name.lower()}")
