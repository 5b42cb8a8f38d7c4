"""PredictRequest and PredictResponse (tensorflow_serving/apis/predict.proto)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from google.protobuf.message import DecodeError

from beam_score.pipeline.serve.tensors.protos import encoded, message, to_array
from beam_score.pipeline.serve.tensors.read_json import Refused, Tensors
from beam_score.pipeline.serve.tensors.stubs import messages
from beam_score.transforms.model.signature import Signature, numpy_dtype


def predict_request(body: bytes) -> tuple[str, Tensors]:
    """Return the signature that a request names, or an empty text; and its tensors. Raises Refused."""
    try:
        request = messages("predict_pb2").PredictRequest.FromString(body)
    except DecodeError:
        raise Refused("the request is not a PredictRequest") from None
    wanted = tuple(request.output_filter)
    feeds = {name: to_array(name, proto) for name, proto in request.inputs.items()}
    return request.model_spec.signature_name, Tensors(feeds, wanted=wanted)


def check_inputs(found: Tensors, signature: Signature) -> None:
    """Raise Refused if the tensors are not the inputs of a signature, or the outputs not of it (predict_util.cc)."""
    sent, expected = set(found.feeds), set(signature.inputs)
    if sent != expected:
        raise Refused(
            f"input size does not match signature: {len(sent)}!={len(expected)} len({{{','.join(sorted(expected))}}}). "
            f"Sent extra: {{{','.join(sorted(sent - expected))}}}. "
            f"Missing but required: {{{','.join(sorted(expected - sent))}}}."
        )
    for name, feed in found.feeds.items():
        if feed.dtype != numpy_dtype(signature.inputs[name]):
            raise Refused(f"input {name!r} is {feed.dtype}, expected {signature.inputs[name].describe()}")
    check_wanted(found, signature.outputs)


def check_shapes(feeds: Mapping[str, np.ndarray], signature: Signature) -> None:
    """Raise Refused if a tensor has another rank than its input, or another size where that is fixed."""
    for name, feed in feeds.items():
        expected = signature.inputs[name].shape
        if expected is None:
            continue
        fits = len(expected) == feed.ndim and all(
            size in (None, own) for size, own in zip(expected, feed.shape, strict=True)
        )
        if not fits:
            found, wanted = (",".join("?" if n is None else str(n) for n in shape) for shape in (feed.shape, expected))
            raise Refused(f"input {name!r} has shape [{found}], expected [{wanted}]")


def check_wanted(found: Tensors, known: Collection[str]) -> None:
    """Raise Refused if an output is asked for that there is not, or twice."""
    for name in found.wanted:
        if name not in known:
            raise Refused(f"there is no output {name[:100]!r}: expected {', '.join(known)}")
    if len(set(found.wanted)) < len(found.wanted):
        raise Refused("an output is asked for twice (output_filter, or outputs)")


def predict_response(outputs: Mapping[str, np.ndarray], signature: str) -> bytes:
    """Return a response, whose model_spec has only the signature: the front knows the rest."""
    tensors = [message(1, message(1, name.encode()) + message(2, encoded(array))) for name, array in outputs.items()]
    return b"".join([*tensors, message(2, message(3, signature.encode()))])
