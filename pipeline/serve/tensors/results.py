"""The results of classify and regress calls, in JSON and as messages (apis/classification.proto, regression.proto)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from beam_score.pipeline.serve.tensors.examples import CLASSIFY
from beam_score.pipeline.serve.tensors.read_json import Refused
from beam_score.pipeline.serve.tensors.stubs import messages
from beam_score.pipeline.serve.tensors.write_json import as_bytes, decimal, quoted

_REGRESSION = np.dtype([("tag", "u1"), ("size", "u1"), ("field", "u1"), ("value", "<f4")])
"""A Regression within its RegressionResult, as it is sent."""


def as_json(method: str, outputs: Mapping[str, np.ndarray], rows: int, lenient: bool) -> bytes:
    """Return the answer `{"results": [...]}`: lists of [label, score] for each row, or a number.

    Args:
      rows: of the request.
      lenient: whether it is the text of TensorFlow Serving, where numbers that are not finite are not JSON.

    Raises:
      Refused: the outputs are not those of such a method.
    """
    if method == CLASSIFY:
        labels, scores = _classes(outputs, rows)
        names = list(map(quoted, labels.reshape(-1)))
        flat = [f"[{name}, {text}]" for name, text in zip(names, _numbers(scores.reshape(-1), lenient), strict=True)]
        width = labels.shape[1]
        texts = ["[" + ", ".join(flat[at * width : (at + 1) * width]) + "]" for at in range(rows)]
    else:
        texts = _numbers(_values(outputs, rows), lenient)
    listed = ", ".join(texts)
    return as_bytes('{\n    "results": [' + listed + "\n    ]\n}" if lenient else '{"results": [' + listed + "]}")


def as_proto(method: str, outputs: Mapping[str, np.ndarray], rows: int, signature: str) -> bytes:
    """Return a ClassificationResponse or a RegressionResponse, whose model_spec has only the signature.

    Args:
      rows: of the request.
      signature: that was called.

    Raises:
      Refused: the outputs are not those of such a method.
    """
    if method == CLASSIFY:
        response = messages("classification_pb2").ClassificationResponse()
        labels, scores = _classes(outputs, rows)
        try:
            names = [[label.decode() for label in row] for row in labels.tolist()]
        except UnicodeDecodeError:
            raise Refused("a label of the model is not UTF-8") from None
        for row, numbers in zip(names, scores.tolist(), strict=True):
            classes = response.result.classifications.add().classes
            for label, score in zip(row, numbers, strict=True):
                classes.add(label=label, score=score)
    else:
        response = messages("regression_pb2").RegressionResponse()
        made = np.empty(rows, _REGRESSION)
        made["tag"], made["size"], made["field"], made["value"] = 0x0A, 5, 0x0D, _values(outputs, rows)
        response.result.MergeFromString(made.tobytes())
    response.model_spec.signature_name = signature
    return response.SerializeToString()


def as_inference_result(method: str, response: bytes) -> bytes:
    """Return an InferenceResult with the result of what `as_proto` returns."""
    made = messages("inference_pb2").InferenceResult()
    if method == CLASSIFY:
        found = messages("classification_pb2").ClassificationResponse.FromString(response)
        made.classification_result.CopyFrom(found.result)
    else:
        found = messages("regression_pb2").RegressionResponse.FromString(response)
        made.regression_result.CopyFrom(found.result)
    made.model_spec.CopyFrom(found.model_spec)
    return made.SerializeToString()


def _classes(outputs: Mapping[str, np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores, [rows, classes] each; empty texts or zeros if the model gives only the other."""
    for name, kind, expected in (("classes", object, "string"), ("scores", np.float32, "float")):
        found = outputs.get(name)
        if found is None:
            continue
        if found.ndim != 2:
            raise Refused(f"Expected Tensor shape: [batch_size num_classes] but got {list(found.shape)}")
        if found.dtype != kind:
            raise Refused(f"Expected {name} Tensor of type {expected}. Got: {found.dtype}")
        if len(found) != rows:
            raise Refused(f"Expected {name} output batch size of {rows}. Got: {len(found)}")
    labels, scores = outputs.get("classes"), outputs.get("scores")
    if labels is None:
        assert scores is not None, "checked with the signature"
        labels = np.full(scores.shape, b"", object)
    if scores is None:
        scores = np.zeros(labels.shape, np.float32)
    if labels.shape != scores.shape:
        raise Refused(
            f"Tensors class and score should match in dim_size(1). Got {labels.shape[1]} vs. {scores.shape[1]}"
        )
    return labels, scores


def _values(outputs: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    """Return the values of a regression, [rows] float32."""
    found = outputs["outputs"]
    if found.ndim != 1 and (found.ndim != 2 or found.shape[1] != 1):
        shape = list(found.shape)
        raise Refused(f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {shape}")
    if len(found) != rows:
        raise Refused(f"Input batch size did not match output batch size. Expected: {rows}. Got: {len(found)}")
    if found.dtype != np.float32:
        raise Refused(f"Expected output Tensor of DT_FLOAT. Got: {found.dtype}")
    return found.reshape(-1)


def _numbers(values: np.ndarray, lenient: bool) -> list[str]:
    texts: np.ndarray = decimal(values)
    if not lenient:
        odd = ~np.isfinite(values)
        texts[odd] = '"' + texts[odd] + '"'
    return texts.tolist()
