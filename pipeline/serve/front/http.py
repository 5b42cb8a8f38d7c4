"""HTTP: requests to answers, as an ASGI application."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from beam_score.pipeline.job.serve import ServeSettings
from beam_score.pipeline.serve.answering.answer import PARTIAL, STAGES, Answer, Request, refusal
from beam_score.pipeline.serve.front import containers, inference
from beam_score.pipeline.serve.front.browsers import CORS, JSON, is_malformed, preflight, wants_partial
from beam_score.pipeline.serve.front.guard import Guard
from beam_score.pipeline.serve.front.models import Models, NoSuchModel, Served
from beam_score.pipeline.serve.front.requests import TRACEPARENT, Refusal, named, request_id
from beam_score.pipeline.serve.reports import tfserving
from beam_score.pipeline.serve.reports.request_log import RequestLog

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# http_rest_api_handler.cc of TensorFlow Serving: the whole path, in any case.
_OF_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_METHOD = re.compile(_OF_MODEL + ":(?P<method>predict|classify|regress)", re.IGNORECASE)
_STATUS = re.compile(_OF_MODEL, re.IGNORECASE)
_METADATA = re.compile(_OF_MODEL + "/metadata", re.IGNORECASE)


class Application:
    """The ASGI application.

    Args:
      models: what is served.
      settings: limits, and what else is answered.
      guard: admits requests; None for all.
      log: of the requests that reach no version.
      aliases: further paths, and the paths that answer them.
    """

    def __init__(
        self,
        models: Models,
        settings: ServeSettings,
        guard: Guard | None = None,
        log: RequestLog | None = None,
        aliases: Mapping[str, str] | None = None,
    ):
        self._models, self._settings, self._limits = models, settings, settings.limits
        self._compat, self._cors, self._aliases = settings.compat == "tfserving", settings.cors, aliases or {}
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
        if self._cors:
            more = (*more, *CORS)
        if answer.status == 503:
            more = (*more, (b"retry-after", b"%d" % answer.retry_s))
        if self._models.draining:
            more = (*more, *_CLOSE)
        length = b"%d" % len(answer.body)
        sent = [(b"content-length", length), (b"x-request-id", id_.encode()), *more]
        if not any(name == b"content-type" for name, _ in more):
            sent.append((b"content-type", JSON))
        await send({"type": "http.response.start", "status": answer.status, "headers": sent})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, id_: str
    ) -> tuple[Answer, Iterable[tuple[bytes, bytes]]]:
        # The path as it was sent: a name may have an encoded slash.
        path, method = scope["raw_path"].decode("latin-1"), scope["method"]
        path = self._aliases.get(path, path)
        if self._guard is not None and path not in _OPEN:
            self._guard.check(headers.get(b"authorization", b""))
        if method == "OPTIONS" and (self._cors or self._compat):
            return preflight(headers), ()
        if self._compat and (malformed := is_malformed(method, path, scope["query_string"])):
            raise Refusal(400, malformed)
        found = _METHOD.fullmatch(path)
        if found or path == "/predict":
            _only(method, "POST")
            served = self._models.find(**(named(found) if found else {"name": self._models.main}), id_=id_)
            form = _form("predict" if found is None else found["method"].lower(), headers)
            return await self._predict(served, form, headers, receive, id_), served.headers
        if path == "/invocations":
            _only(method, "POST")
            form, type_ = containers.invocation(headers)
            form += f",{PARTIAL}" if wants_partial(headers) else ""
            served = self._models.find(self._models.main, id_=id_)
            answer = await self._predict(served, form, headers, receive, id_)
            return answer, (*served.headers, (b"content-type", type_ if answer.status == 200 else JSON))
        if found := inference.INFER.fullmatch(path):
            _only(method, "POST")
            served = self._models.find(**named(found), id_=id_)
            answer = await self._predict(served, inference.form_of(headers), headers, receive, id_)
            answer, own = inference.infer_answer(answer, served)
            return answer, (*served.headers, *own)
        answer, more = self._described(path, id_)  # or 404
        _only(method, "GET", "HEAD")
        return answer, more

    async def _predict(
        self, served: Served, form: str, headers: Mapping[bytes, bytes], receive: Receive, id_: str
    ) -> Answer:
        """Answer a request for predictions. Raises Refusal."""
        with served:  # it does not end while the body comes
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

    def _described(self, path: str, id_: str) -> tuple[Answer, Iterable[tuple[bytes, bytes]]]:
        """Answer a route for health, metadata or metrics. Raises Refusal, NoSuchModel."""
        if path == "/ping":
            return Answer(200 if self._models.ready else 503, b""), ()
        if path == "/execution-parameters":
            return _json(
                {
                    "MaxConcurrentTransforms": min(containers.CONCURRENT, self._limits.requests),
                    "BatchStrategy": "MULTI_RECORD",
                    "MaxPayloadInMB": max(1, self._limits.body >> 20),
                }
            ), ()
        if path.startswith("/v2"):
            return _json(inference.described(self._models, path)), ()
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
            return _json({"model_version_status": self._models.statuses(**named(found))}), ()
        if found := _METADATA.fullmatch(path):
            return _json(self._models.find(**named(found)).metadata), ()
        raise Refusal(404, _NOTHING)

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Return the body, inflated. Raises Refusal."""
        most = self._limits.body
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > most:
            # What still comes of it is dropped (`Exchange.add`), so that the client reads this answer.
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


def _form(method: str, headers: Mapping[bytes, bytes]) -> str:
    """Return the form of a request of TensorFlow Serving; see `Request`."""
    if method != "predict":
        return f"json-{method}"
    return f"json;{PARTIAL}" if wants_partial(headers) else "json"


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
_OPEN = ("/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready")
"""Paths that need no token: those of health."""
_TIMING = ", ".join(f"{stage};dur=%.3f" for stage in STAGES).encode()
