"""The warm-up file of a SavedModel: requests that a version answers before it is available.

By servables/tensorflow/saved_model_warmup.cc of TensorFlow Serving: a TFRecord file of PredictionLogs
(tensorflow_serving/apis/prediction_log.proto).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError, Message

from beam_score.pipeline.serve.answering.answer import Request
from beam_score.transforms.framing.tfrecord import Records, read_records
from beam_score.transforms.model.proto_fields import message_class
from beam_score.transforms.model.signature import ModelError

WARM_UP = "assets.extra/tf_serving_warmup_requests"
"""The path of the file in a SavedModel."""

MOST_RECORDS = 1000

_BLOCK_BYTES, _MOST_RECORD_BYTES = 1 << 20, 1 << 30

_FORMS = {
    "predict_log": "proto",
    "classify_log": "proto-classify",
    "regress_log": "proto-regress",
    "multi_inference_log": "proto-multi",
}
"""Fields of a PredictionLog to the form of their request."""

_FIELDS = {
    "PredictionLog": [
        ("classify_log", 2, "|Log"),
        ("regress_log", 3, "|Log"),
        ("multi_inference_log", 4, "|Log"),
        ("predict_log", 6, "|Log"),
    ],
    "Log": [("request", 1, "bytes")],
}


def warm_up_requests(path: str) -> Iterator[Request]:
    """Yield the requests of the warm-up file of a SavedModel, in order; none if it has no such file.

    Args:
      path: of the local folder.

    Raises:
      ModelError: the file is damaged or too long, or a record has no request.
      OSError: it cannot be read.
    """
    for number, record in enumerate(_records(Path(path) / WARM_UP), 1):
        if number > MOST_RECORDS:
            raise ModelError(f"{WARM_UP} has more than {MOST_RECORDS:,} records")
        try:
            log = _class().FromString(record)
        except DecodeError:
            raise ModelError(f"{WARM_UP}: record {number} is not a PredictionLog") from None
        kind = log.WhichOneof("kind")
        if kind is None:
            raise ModelError(f"{WARM_UP}: record {number} has none of {', '.join(_FORMS)}")
        yield Request(f"warm-up-{number}", getattr(log, kind).request, _FORMS[kind])


def _records(file: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file. Raises ModelError, OSError."""
    if not file.exists():
        return
    with open(file, "rb") as stream:
        for found in read_records(stream.read, _BLOCK_BYTES, _MOST_RECORD_BYTES):
            if not isinstance(found, Records) or not found.sound().all():
                raise ModelError(f"{WARM_UP} is damaged, or not a TFRecord file")
            for start, end in zip(found.starts.tolist(), found.ends.tolist(), strict=True):
                yield found.buffer[start:end]


@functools.cache
def _class() -> type[Message]:
    return message_class("PredictionLog", _FIELDS, "beam_score.warm_up")
