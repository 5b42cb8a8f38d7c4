"""Requests and answers, as front and model process exchange them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import orjson

@dataclasses.dataclass(frozen=True)
class Request:
    """A request as the front passes it on.

    Attributes:
      id: of the request, to be found in the log.
      body: as it came.
      form: `predict`: JSON in row form or in column form.
    """

    id: str
    body: bytes
    form: str = "predict"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is sent for one request.

    Attributes:
      status: of HTTP.
      body: JSON.
      received, predicted, rejected, failed: rows.
      reasons: rejected rows by reason code.
    """

    status: int
    body: bytes
    received: int = 0
    predicted: int = 0
    rejected: int = 0
    failed: int = 0
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)


def refusal(status: int, message: str, id_: str, **more: Any) -> Answer:
    """Return the answer to a request that is refused as a whole, or that failed."""
    return Answer(status, orjson.dumps({"error": message, "code": _CODES[status], "request_id": id_, **more}))


_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "RESOURCE_EXHAUSTED",
    415: "UNSUPPORTED_ENCODING",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
