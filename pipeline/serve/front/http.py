"""HTTP: requests to answers."""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from beam_score.pipeline.job.serve import ServeSettings
from beam_score.pipeline.serve.answering.answer import PARTIAL, STAGES, Answer, Request, refusal
from beam_score.pipeline.serve.front import containers, inference
from beam_score.pipeline.serve.front.browsers import CORS, JSON, is_malformed, preflight, wants_partial
from beam_score.pipeline.serve.front.guard import Guard
from beam_score.pipeline.serve.front.models import Models, NoSuchModel, Served
from beam_score.pipeline.serve.front.requests import Refusal, named, request_id
from beam_score.pipeline.serve.http1.exchange import Exchange
from beam_score.pipeline.serve.models.queue import Waiting
from beam_score.pipeline.serve.reports import tfserving
from beam_score.pipeline.serve.reports.request_log import RequestLog

Headers = Iterable[tuple[bytes, bytes]]
Finish = Callable[[Answer, Served], tuple[Answer, Headers]]
"""Makes of the answer of a version the one that is sent, and its headers."""

# http_rest_api_handler.cc of TensorFlow Serving: the whole path, in any case.
_OF_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_METHOD = re.compile(_OF_MODEL + ":(?P<method>predict|classify|regress)", re.IGNORECASE)
_STATUS = re.compile(_OF_MODEL, re.IGNORECASE)
_METADATA = re.compile(_OF_MODEL + "/metadata", re.IGNORECASE)


class Application:
    """Answers requests.

    Args:
      models: what is served.
      settings: limits, and what else is answered.
      guard: admits requests; None for all.
      log: of the requests that reach no version.
      aliases: further paths, and the paths that answer them.

    Attributes:
      limits: of requests.
      open: requests for predictions that are not answered yet.
    """

    def __init__(
        self,
        models: Models,
        settings: ServeSettings,
        guard: Guard | None = None,
        log: RequestLog | None = None,
        aliases: Mapping[str, str] | None = None,
    ):
        self._models, self._settings, self.limits = models, settings, settings.limits
        self._compat, self._cors, self._aliases = settings.compat == "tfserving", settings.cors, aliases or {}
        self._guard, self._log = guard, log
        self.open = 0

    def __call__(self, exchange: Exchange) -> None:
        """Answer a request whose head has come, once its body has come if it matters."""
        id_ = request_id(exchange.headers.get(b"x-request-id", b"").decode("latin-1"))
        try:
            self._begin(exchange, id_)
        except Refusal as error:
            self.refuse(exchange, id_, error)
        except NoSuchModel as error:
            self.refuse(exchange, id_, Refusal(404, str(error)))

    def _begin(self, exchange: Exchange, id_: str) -> None:
        """Answer a request, or begin to read its body. Raises Refusal, NoSuchModel."""
        # The path as it was sent: a name may have an encoded slash.
        path, method, headers = self._aliases.get(exchange.path, exchange.path), exchange.method, exchange.headers
        if self._guard is not None and path not in _OPEN:
            self._guard.check(headers.get(b"authorization", b""))
        if method == "OPTIONS" and (self._cors or self._compat):
            return self.answer(exchange, id_, preflight(headers))
        if self._compat and (malformed := is_malformed(method, path, exchange.query)):
            raise Refusal(400, malformed)
        if path == "/predict":
            _only(method, "POST")
            served = self._models.find(self._models.main, id_=id_)
            return self._predict(exchange, id_, served, _form("predict", headers))
        if found := _METHOD.fullmatch(path):
            _only(method, "POST")
            served = self._models.find(**named(found), id_=id_)
            return self._predict(exchange, id_, served, _form(found["method"].lower(), headers))
        if path == "/invocations":
            _only(method, "POST")
            form, type_ = containers.invocation(headers)
            form += f",{PARTIAL}" if wants_partial(headers) else ""
            served = self._models.find(self._models.main, id_=id_)
            return self._predict(exchange, id_, served, form, functools.partial(_typed, type_))
        if found := inference.INFER.fullmatch(path):
            _only(method, "POST")
            served = self._models.find(**named(found), id_=id_)
            return self._predict(exchange, id_, served, inference.form_of(headers), inference.infer_answer)
        answer, more = self._described(path, id_)  # or 404
        _only(method, "GET", "HEAD")
        return self.answer(exchange, id_, answer, more)

    def _predict(self, exchange: Exchange, id_: str, served: Served, form: str, finish: Finish | None = None) -> None:
        """Begin to read the body of a request for predictions."""
        prediction = Prediction(self, exchange, served, id_, form, finish)
        try:
            prediction.seconds = self._allowed_s(exchange.headers)
        except Refusal as error:
            prediction.refuse(error)
        else:
            exchange.read(prediction, self.limits.body)

    def _allowed_s(self, headers: Mapping[bytes, bytes]) -> float:
        """Return the seconds until a request is late. Raises Refusal: it is not read."""
        limits, seconds = self.limits, self.limits.request
        if self.open > limits.requests:
            raise Refusal(503, f"more than serve.limits.requests {limits.requests:,} at the same time")
        if (asked := headers.get(b"x-request-timeout-ms")) is not None:
            seconds = min(seconds, _milliseconds(asked))
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limits.body:
            # What still comes of it is dropped (`Connection._close`), so that the client reads this answer.
            raise Refusal(413, f"the body has {int(declared):,} bytes, more than serve.limits.body {limits.body:,}")
        return seconds

    def refuse(self, exchange: Exchange, id_: str, error: Refusal) -> None:
        """Answer a request that is refused before it reaches a model."""
        if self._log is not None and not error.counted:
            self._log.refused(id_, "rest", error.status)
        self.answer(exchange, id_, refusal(error.status, str(error), id_), error.headers)

    def answer(self, exchange: Exchange, id_: str, answer: Answer, more: Headers = (), head: bytes = b"") -> None:
        """Send an answer.

        Args:
          more: further headers.
          head: lines of further headers.
        """
        type_, timing = _JSON_TYPE, b""
        if more or self._cors:
            more = (*more, *CORS) if self._cors else tuple(more)
            head += b"".join([b"%b: %b\r\n" % header for header in more])
            if any(name == b"content-type" for name, _ in more):
                type_ = b""
        if answer.stages:
            timing = _TIMING % tuple([1000 * seconds for seconds in answer.stages])
        if answer.status == 503:
            head += b"retry-after: %d\r\n" % answer.retry_s
        if self._models.draining and not exchange.is_followed:
            exchange.keeps_alive = False
        lines = _HEAD % (len(answer.body), id_.encode(), head, timing, type_)
        exchange.answer(answer.status, lines, answer.body)

    def _described(self, path: str, id_: str) -> tuple[Answer, Headers]:
        """Answer a route for health, metadata or metrics. Raises Refusal, NoSuchModel."""
        if path == "/ping":
            return Answer(200 if self._models.ready else 503, b""), ()
        if path == "/execution-parameters":
            return _json(
                {
                    "MaxConcurrentTransforms": min(containers.CONCURRENT, self.limits.requests),
                    "BatchStrategy": "MULTI_RECORD",
                    "MaxPayloadInMB": max(1, self.limits.body >> 20),
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


class Prediction:
    """A request for predictions, from its head to its answer.

    Args:
      application: that it came to.
      exchange: the request.
      served: the version that answers.
      id_, form: see `Request`.
      finish: see `Finish`; None for answers that are sent as they are.

    Attributes:
      seconds: from the end of its body until it is late.
    """

    def __init__(
        self, application: Application, exchange: Exchange, served: Served, id_: str, form: str, finish: Finish | None
    ):
        self._application, self._exchange, self._served = application, exchange, served
        self._id, self._form, self._finish = id_, form, finish
        self.seconds, self._is_over = 0.0, False
        self._waiting: Waiting | None = None
        served.hold()  # it does not end while the body comes
        application.open += 1

    def body(self, data: bytes) -> None:
        """Pass on the body; see `Reader`."""
        headers = self._exchange.headers
        try:
            data = _plain(data, headers, self._application.limits.body)
        except Refusal as error:
            self.refuse(error)
            return
        request = Request(self._id, data, self._form, headers.get(b"traceparent", b"").decode("latin-1"))
        self._waiting = self._served.submit(request, self.seconds, "rest", self._done)

    def refuse(self, error: Refusal) -> None:
        """Refuse the request before it reaches the version; see `Reader`."""
        error.counted = True
        self._refuse(error.status)
        self._end()
        self._application.refuse(self._exchange, self._id, error)

    def gone(self) -> None:
        """Answer no more; see `Reader`."""
        if self._waiting is not None:
            self._served.drop(self._waiting)
        elif not self._is_over:
            self._refuse(499)
        self._end()

    def _done(self, answer: Answer) -> None:
        self._exchange.run(self._send, answer)

    def _send(self, answer: Answer) -> None:
        more: Headers = ()
        if self._finish is not None:
            answer, more = self._finish(answer, self._served)
        self._end()
        self._application.answer(self._exchange, self._id, answer, more, self._served.head)

    def _refuse(self, status: int) -> None:
        self._served.refuse(status, Request(self._id, b"", self._form), "rest")

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._application.open -= 1
            self._served.release()


def _typed(type_: bytes, answer: Answer, _: Served) -> tuple[Answer, Headers]:
    """Return an answer with its content type; see `Finish`."""
    return answer, ((b"content-type", type_ if answer.status == 200 else JSON),)


def _plain(body: bytes, headers: Mapping[bytes, bytes], most: int) -> bytes:
    """Return a body, inflated. Raises Refusal."""
    if b"content-encoding" not in headers or (encoding := headers[b"content-encoding"].lower()) == b"identity":
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
_JSON_TYPE = b"content-type: %b\r\n" % JSON
_HEAD = b"content-length: %d\r\nx-request-id: %b\r\n%b%b%b"
_NOTHING = "there is nothing at this path: see docs/serving.md for the routes"
_OPEN = ("/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready")
"""Paths that need no token: those of health."""
_TIMING = b"server-timing: " + ", ".join(f"{stage};dur=%.3f" for stage in STAGES).encode() + b"\r\n"
