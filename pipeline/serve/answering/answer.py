"""Requests and answers, as front and model process exchange them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

PARTIAL = "partial"
"""Option of a request: the good rows are predicted although others are refused."""

AS_LINES, AS_CSV = "as-lines", "as-csv"
"""Options of a request: the form of its answer."""

HEADER, NO_HEADER = "header", "no-header"
"""Options of a request in CSV; without either, a first line that has the name of a column is a header."""

_ROW_BYTES = 16  # of a message


@dataclasses.dataclass(frozen=True)
class Request:
    """A request as the front passes it on.

    Attributes:
      id: of the request, to be found in the log.
      body: as it came.
      form: `json` for a predict request of TensorFlow Serving, `lines` and `csv` for rows in JSON Lines and in CSV,
        each with `options` after a `;`; `json-classify`, `json-regress`; `proto` for a PredictRequest of gRPC, and
        `proto-classify`, `proto-regress`, `proto-multi`; `v2` for JSON of the Open Inference Protocol, `v2;LENGTH` if
        raw data follow so many bytes of it, `v2-proto` for its ModelInferRequest.
      traceparent: the W3C trace context that came with it; empty for none.
    """

    id: str
    body: bytes
    form: str = "json"
    traceparent: str = ""

    @property
    def kind(self) -> str:
        """The form without its options."""
        return self.form.partition(";")[0]

    @property
    def options(self) -> list[str]:
        """The options of the form: PARTIAL, AS_LINES, AS_CSV, HEADER, NO_HEADER."""
        return self.form.partition(";")[2].split(",") if ";" in self.form else []

    def count_rows(self) -> int:
        """Return an estimate of its rows, which costs little: exact for flat objects."""
        return max(
            1, self.body.count(b"{") - 1 if self.form.startswith(("json", "lines")) else len(self.body) // _ROW_BYTES
        )


STAGES = ("queue", "validate", "model", "encode")


@dataclasses.dataclass(slots=True)
class Answer:
    """The answer to one request.

    Attributes:
      status: of HTTP.
      body: JSON.
      received, predicted, rejected: rows.
      reasons: rejected rows, as (reason code, column, number).
      shed: whether it was refused before it reached the model.
      retry_s: seconds after which the same request may be answered, with status 503.
      signature: that answered; empty if the request was refused before.
      stages: seconds of the STAGES of its batch; empty if it was in none.
      batch_rows: of its batch.
      seconds: from the request to this answer.
    """

    status: int
    body: bytes
    received: int = 0
    predicted: int = 0
    rejected: int = 0
    reasons: Sequence[tuple[str, str, int]] = ()
    shed: bool = False
    retry_s: int = 1
    signature: str = ""
    stages: Sequence[float] = ()
    batch_rows: int = 0
    seconds: float = 0.0


def refusal(status: int, message: str, id_: str, more: Mapping[str, Any] | None = None, shed: bool = False) -> Answer:
    """Return the answer to a request that is refused as a whole, or that failed.

    Args:
      more: further members of its JSON.
    """
    body = orjson.dumps({"error": message, "code": CODES[status], "request_id": id_, **(more or {})})
    return Answer(status, body, shed=shed)


CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    415: "UNSUPPORTED_ENCODING",
    431: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
