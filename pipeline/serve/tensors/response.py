"""Tensors as the answer of a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from beam_score.pipeline.serve.tensors.predict import predict_response
from beam_score.pipeline.serve.tensors.read_json import Tensors
from beam_score.pipeline.serve.tensors.v2 import rest, rpc


def written(
    form: str,
    outputs: Mapping[str, np.ndarray],
    signature: str,
    asked: Tensors,
    parameters: Mapping[str, Any] | None = None,
) -> bytes:
    """Return outputs in the form of their request, `proto`, `v2` or `v2-proto`; without the model's name and
    version, which the front adds.

    Args:
      signature: that was called.
      asked: the request.
      parameters: of the answer, for the Open Inference Protocol.
    """
    if form == "proto":
        return predict_response(outputs, signature)
    return (rpc if form == "v2-proto" else rest).infer_response(outputs, asked, parameters or {})
