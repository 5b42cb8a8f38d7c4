"""HTTP: requests to answers, as an ASGI application."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import re
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from beam_score.pipeline.job.serve import ServeSettings
from beam_score.pipeline.serve.answering.answer import STAGES, Answer, Request, refusal
from beam_score.pipeline.serve.front.guard import Guard
from beam_score.pipeline.serve.front.models import Models, NoSuchModel, Served, State
from beam_score.pipeline.serve.front.requests import TRACEPARENT, Refusal, request_id
from beam_score.pipeline.serve.reports import tfserving
from beam_score.pipeline.serve.reports.request_log import RequestLog

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# http_rest_api_handler.cc of TensorFlow Serving: the whole path, in any case.
_OF_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+))?"
_PREDICT = re.compile(_OF_MODEL + ":predict", re.IGNORECASE)
_STATUS = re.compile(_OF_MODEL, re.IGNORECASE)
_METADATA = re.compile(_OF_MODEL + "/metadata", re.IGNORECASE)
_OF_V2 = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[0-9]+))?"
_INFER, _V2_READY, _V2_MODEL = (re.compile(_OF_V2 + end) for end in ("/infer", "/ready", ""))


class Application:
    """The ASGI application.

    Args:
      models: what is served.
      settings: limits, and what else is answered.
      guard: admits requests; None for all.
      log: of the requests that reach no version.
    """

    def __init__(
        self, models: Models, settings: ServeSettings, guard: Guard | None = None, log: RequestLog | None = None
    ):
        self._models, self._settings, self._limits = models, settings, settings.limits
        self._guard, self._log = guard, log
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise NotImplementedError(f"{scope['type']} is not served")
        headers = dict(scope["headers"])
        id_ = request_id(headers.get(b"x-request-id", b"").decode("latin-1"))
        if (parent := headers.get(b"traceparent")) is not None:
            TRACEPARENT.set(parent.decode("latin-1"))
        self._open += 1
        try:
            await self._respond(scope, headers, receive, send, id_)
        finally:
            self._open -= 1

    async def _respond(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send, id_: str
    ) -> None:
        more: Iterable[tuple[bytes, bytes]] = ()
        try:
            answer, more = await self._answer(scope, headers, receive, id_)
        except Refusal as error:
            answer, more = refusal(error.status, str(error), id_), error.headers
            if self._log is not None and not error.counted:
                self._log.refused(id_, "rest", error.status)
        except NoSuchModel as error:
            answer = refusal(404, str(error), id_)
            if self._log is not None:
                self._log.refused(id_, "rest", 404)
        except asyncio.CancelledError:
            return  # the client has gone
        if answer.stages:
            more = (*more, (b"server-timing", _TIMING % tuple(1000 * seconds for seconds in answer.stages)))
        if self._settings.cors:
            more = (*more, *_CORS)
        if answer.status == 503:
            more = (*more, (b"retry-after", b"%d" % answer.retry_s))
        if self._models.draining:
            more = (*more, *_CLOSE)
        length = b"%d" % len(answer.body)
        sent = [(b"content-length", length), (b"x-request-id", id_.encode()), *more]
        if not any(name == b"content-type" for name, _ in more):
            sent.append((b"content-type", b"application/json"))
        await send({"type": "http.response.start", "status": answer.status, "headers": sent})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, id_: str
    ) -> tuple[Answer, Iterable[tuple[bytes, bytes]]]:
        path, method = scope["path"], scope["method"]
        if self._guard is not None and path not in _OPEN:
            self._guard.check(headers.get(b"authorization", b""))
        if method == "OPTIONS" and self._settings.cors:
            return Answer(200, b""), ()
        found = _PREDICT.fullmatch(path)
        if found or path == "/predict":
            _only(method, "POST")
            served = self._models.find(found["name"], found["version"]) if found else self._models.only
            return await self._predict(served, "json", headers, receive, id_), served.headers
        if found := _INFER.fullmatch(path):
            _only(method, "POST")
            served = self._models.find(found["name"], found["version"])
            answer = await self._predict(served, "v2", headers, receive, id_)
            if answer.status == 200:
                named = {"model_name": served.version.name, "model_version": str(served.version.number)}
                answer = dataclasses.replace(answer, body=orjson.dumps(named)[:-1] + b"," + answer.body[1:])
            return answer, served.headers
        _only(method, "GET", "HEAD")
        if path.startswith("/v2"):
            return self._v2(path, id_), ()
        if path == "/healthz":
            return _json({"status": "ok"}), ()
        if path == "/readyz":
            return (_json({"status": "ready"}), ()) if self._models.ready else (refusal(503, "not ready", id_), ())
        if path == "/metrics":
            return Answer(200, generate_latest(self._models.accounts.registry)), ((b"content-type", _PROMETHEUS),)
        if path == self._settings.monitoring:
            return Answer(200, tfserving.as_text(self._models.accounts)), ((b"content-type", b"text/plain"),)
        if path == "/v1/models":
            return _json({"models": self._models.names}), ()
        if found := _STATUS.fullmatch(path):
            return _json({"model_version_status": self._models.statuses(found["name"], found["version"])}), ()
        if found := _METADATA.fullmatch(path):
            return _json(self._models.find(found["name"], found["version"]).metadata), ()
        raise Refusal(404, _NOTHING)

    async def _predict(
        self, served: Served, form: str, headers: Mapping[bytes, bytes], receive: Receive, id_: str
    ) -> Answer:
        """Answer a request for predictions. Raises Refusal."""
        try:
            if self._open > self._limits.requests:
                raise Refusal(503, f"more than serve.limits.requests {self._limits.requests:,} at the same time")
            seconds = self._limits.request
            if (asked := headers.get(b"x-request-timeout-ms")) is not None:
                seconds = min(seconds, _milliseconds(asked))
            body = await self._body(headers, receive)
        except Refusal as error:
            error.counted = True
            served.refuse(error.status, Request(id_, b"", form), "rest")
            raise
        except asyncio.CancelledError:
            served.refuse(499, Request(id_, b"", form), "rest")
            raise
        return await served.answer(Request(id_, body, form), seconds, "rest")

    def _v2(self, path: str, id_: str) -> Answer:
        """Answer the routes of the Open Inference Protocol for health and metadata. Raises Refusal, NoSuchModel."""
        if path == "/v2":
            return _json({"name": "beam-score", "version": importlib.metadata.version("beam-score"), "extensions": []})
        if path == "/v2/health/live":
            return _json({"live": True})
        if path == "/v2/health/ready":
            return _json({"ready": True}) if self._models.ready else refusal(503, "not ready", id_)
        if found := _V2_READY.fullmatch(path):
            served = self._models.find(found["name"], found["version"])
            ready = served.state == State.AVAILABLE
            return _json({"name": served.version.name, "ready": True}) if ready else refusal(503, "not ready", id_)
        if found := _V2_MODEL.fullmatch(path):
            return _json(self._models.find(found["name"], found["version"]).v2_metadata)
        raise Refusal(404, _NOTHING)

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Return the body, inflated. Raises Refusal."""
        most = self._limits.body
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > most:
            # What comes of it is not kept (see uvicorn's on_body), so that the client reads this answer.
            raise Refusal(413, f"the body has {int(declared):,} bytes, more than serve.limits.body {most:,}")
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise asyncio.CancelledError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise Refusal(413, f"the body has more bytes than serve.limits.body {most:,}")
            if not message.get("more_body"):
                break
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        encoding = headers.get(b"content-encoding", b"identity").lower()
        if encoding == b"identity":
            return body
        if encoding != b"gzip":
            raise Refusal(415, "the body has another Content-Encoding than gzip", ((b"accept-encoding", b"gzip"),))
        return _inflated(body, most)


def _inflated(body: bytes, most: int) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    try:
        made = inflate.decompress(body, most + 1)
    except zlib.error:
        raise Refusal(400, "the body is not gzip, and its Content-Encoding says so") from None
    if len(made) > most:
        raise Refusal(413, f"the body has more bytes than serve.limits.body {most:,} once it is inflated")
    if not inflate.eof or inflate.unused_data:
        raise Refusal(400, "the body is not one whole gzip stream")
    return made


def _milliseconds(text: bytes) -> float:
    """Return X-Request-Timeout-Ms in seconds. Raises Refusal."""
    if not text.isdigit() or len(text) > 12 or not int(text):
        raise Refusal(400, "X-Request-Timeout-Ms is not a number of milliseconds above 0")
    return int(text) / 1000


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        allow = ((b"allow", ", ".join(allowed).encode()),)
        raise Refusal(405, f"{method[:20]} is not for this path: use {allowed[0]}", allow)


def _json(value: Any) -> Answer:
    return Answer(200, orjson.dumps(value))


_PROMETHEUS = CONTENT_TYPE_LATEST.encode()
_NOTHING = "there is nothing at this path: see docs/serving.md for the routes"
_CLOSE = ((b"connection", b"close"),)
_OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
"""Paths that need no token: those of health."""
_TIMING = ", ".join(f"{stage};dur=%.3f" for stage in STAGES).encode()
_CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)
