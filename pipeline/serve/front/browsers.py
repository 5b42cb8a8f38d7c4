"""Requests as browsers, proxies and clients of TensorFlow Serving make them, apart from their routes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from beam_score.pipeline.serve.answering.answer import Answer
from beam_score.pipeline.serve.front.requests import Refusal

JSON = b"application/json"

CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)
"""Headers of all answers, by http_server.cc of TensorFlow Serving."""

_POSTS = re.compile(r"/v1/models/[^/:]+(?:/(?:versions/[0-9]+|labels/[^/:]+))?:(?:predict|classify|regress)", re.I)
_GETS = re.compile(r"/v1/models/[^/:]+(?:/(?:versions/[0-9]+|labels/[^/:]+))?(?:/metadata)?", re.I)


def preflight(headers: Mapping[bytes, bytes]) -> Answer:
    """Return the answer to OPTIONS. Raises Refusal."""
    if not re.match(rb"https?://", headers.get(b"origin", b"")):
        raise Refusal(400, "Origin header is missing in CORS preflight")
    return Answer(200, b"")


def is_malformed(method: str, path: str, query: bytes) -> str | None:
    """Return why TensorFlow Serving refuses a request before it looks at its body; None if it does not."""
    if not path.lower().startswith("/v1/"):
        return None
    if method == "GET" and path.lower() in ("/v1/models", "/v1/models/"):
        return "Missing model name in request."
    route = {"POST": _POSTS, "GET": _GETS}.get(method)
    if query or route is None or not route.fullmatch(path):
        return f"Malformed request: {method[:20]} {path[:200]}{'?' if query else ''}{query[:200].decode('latin-1')}"
    return None


def wants_partial(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request prefers the good rows to none (RFC 7240)."""
    return b"prefer" in headers and b"return=partial" in headers[b"prefer"].lower().replace(b" ", b"")
