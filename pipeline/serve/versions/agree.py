"""The comparison of two answers to the same request."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from beam_score.pipeline.serve.answering.answer import Answer
from beam_score.pipeline.serve.tensors.protos import to_array
from beam_score.pipeline.serve.tensors.stubs import messages

_OWN = ("request_id", "model_version")
"""Members of JSON that differ in any case."""


def answers_agree(form: str, one: Answer, other: Answer, tolerance: float) -> bool:
    """Return whether two answers are the same.

    Args:
      form: of the request; see `Request`.
      tolerance: by which numbers may differ; relative to numbers above 1.
    """
    if one.status != other.status:
        return False
    if one.body == other.body:
        return True
    if one.status == 200 and form == "proto":
        return _outputs_agree(one.body, other.body, tolerance)
    try:
        return values_agree(json.loads(one.body), json.loads(other.body), tolerance)
    except ValueError:
        return False  # bytes of another form


def values_agree(one: Any, other: Any, tolerance: float) -> bool:
    """Return whether two values of JSON are the same, except for members that differ in any case."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = (one.keys() | other.keys()) - set(_OWN)
        return all(n in one and n in other and values_agree(one[n], other[n], tolerance) for n in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(values_agree, one, other, itertools.repeat(tolerance)))
    if _is_number(one) and _is_number(other):
        close = math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
        return close or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and bool(one == other)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _outputs_agree(one: bytes, other: bytes, tolerance: float) -> bool:
    response = messages("predict_pb2").PredictResponse
    first, second = response.FromString(one).outputs, response.FromString(other).outputs
    return first.keys() == second.keys() and all(
        _arrays_agree(to_array(name, first[name]), to_array(name, second[name]), tolerance) for name in first
    )


def _arrays_agree(one: np.ndarray, other: np.ndarray, tolerance: float) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one.astype(float), other.astype(float), rtol=tolerance, atol=tolerance, equal_nan=True))
