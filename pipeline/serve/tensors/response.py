"""Tensors as the answer of a protocol."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from beam_score.pipeline.serve.tensors.predict import predict_response
from beam_score.pipeline.serve.tensors.v2 import infer_response


def written(form: str, outputs: Mapping[str, np.ndarray], signature: str, id_: str | None) -> bytes:
    """Return outputs in the form of their request, `proto` or `v2`; without the model's name and version, which the
    front adds.

    Args:
      signature: that was called.
      id_: to be repeated, with `v2`.
    """
    return predict_response(outputs, signature) if form == "proto" else infer_response(outputs, id_)
