"""The contracts of containers: Vertex AI, by environment variables, and SageMaker, by fixed routes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from beam_score.pipeline.serve.answering.answer import AS_CSV, AS_LINES, HEADER, NO_HEADER
from beam_score.pipeline.serve.front.requests import Refusal

CONCURRENT = 16
"""Requests at the same time that SageMaker's batch transform is asked to send."""

_KINDS = {
    "application/json": "json",
    "application/jsonlines": "lines",
    "application/x-jsonlines": "lines",
    "text/csv": "csv",
}
_ANSWERS = {"json": "", "lines": AS_LINES, "csv": AS_CSV}
_TYPES = {"json": b"application/json", "lines": b"application/jsonlines", "csv": b"text/csv"}
_HEADER = re.compile(r";\s*header\s*=\s*\"?(present|absent)")


def aliases(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the routes that Vertex AI asks for, with those that answer them."""
    given = {"AIP_PREDICT_ROUTE": "/predict", "AIP_HEALTH_ROUTE": "/readyz"}
    return {environment[name]: route for name, route in given.items() if environment.get(name)}


def invocation(headers: Mapping[bytes, bytes]) -> tuple[str, bytes]:
    """Return the form of a request to `/invocations` (see `Request`), and the content type of its answer.

    Raises:
      Refusal: either type is not known.
    """
    given = headers.get(b"content-type", b"").decode("latin-1").lower()
    type_ = given.partition(";")[0].strip()
    kind = _KINDS.get(type_ or "application/json")
    if kind is None:
        raise Refusal(415, f"the body has another Content-Type than {', '.join(_KINDS)}")
    accepted = headers.get(b"accept", b"*/*").decode("latin-1").lower().split(",")
    known = {**_KINDS, "*/*": kind, "": kind}
    answer = next((known[name] for one in accepted if (name := one.partition(";")[0].strip()) in known), None)
    if answer is None:
        raise Refusal(406, f"the answer can only be one of {', '.join(_KINDS)}")
    options = [_ANSWERS[answer]]
    if kind == "csv" and (found := _HEADER.search(given)):
        options.append(HEADER if found[1] == "present" else NO_HEADER)
    return f"{kind};{','.join(filter(None, options))}", _TYPES[answer]
