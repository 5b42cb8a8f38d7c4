"""A small HTTP proxy for one server, which records requests and fails those that a test selects."""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import functools
import http.client
import http.server
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

from batched import asked_within, fail_within

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"}


@dataclasses.dataclass
class Fault:
    """A fault of some requests.

    Attributes:
      kind: `status` (answered with `status`, and not passed on), `delay` (passed on later), `reset` (the connection
        breaks before the request is passed on), `lost` (it breaks after the request was carried out), `truncate` (half
        of the answer's body), `within` (the matching parts of a batch request are answered with `status`, and not
        carried out), `before` and `after` (no fault; `call` is called before or after the request is carried out).
      method, target: regular expressions: a full match for the method, a search for the target.
      nth: number of the first matching request to fail, from 1.
      times: number of consecutive requests to fail.
      each: fail the first attempt of each distinct request instead, however many come between.
      status: for `status` and `within`; seconds: for `delay`.
      seen: number of matching requests; done: number of failed requests; known: the requests that matched.
    """

    kind: str
    method: str = ".*"
    target: str = ""
    nth: int = 1
    times: int = 1
    each: bool = False
    status: int = 503
    seconds: float = 1.0
    call: Callable[[], object] = lambda: None
    seen: int = 0
    done: int = 0
    known: set[tuple[str, str]] = dataclasses.field(default_factory=set)

    def takes(self, method: str, target: str) -> bool:
        if not re.fullmatch(self.method, method) or not re.search(self.target, target):
            return False
        self.seen += 1
        new = (method, target) not in self.known
        self.known.add((method, target))
        if not (new if self.each else self.nth <= self.seen < self.nth + self.times):
            return False
        self.done += 1
        return True


@dataclasses.dataclass(frozen=True)
class Request:
    """A recorded request.

    Attributes:
      method, target: of the request; after a # the name of the uploaded object, if the body contains it.
      fault: the fault applied; None for none.
      status: of the answer; None if there was none.
    """

    method: str
    target: str
    fault: str | None
    status: int | None


class Proxy:
    """The proxy and its record of requests.

    Attributes:
      port: its port on 127.0.0.1.
      requests: all requests, in the order of their ends.
      ahead_s: seconds that the date of each answer is ahead of the clock.
      check: given (method, target, headers, a function that sends a GET) of a request that changes something, may
        return the status to answer with; for conditions that the server does not support.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.check: Callable[[str, str, dict[str, str], Callable[[str], dict | None]], int | None] | None = None
        self.ahead_s = 0.0
        self._faults: list[Fault] = []
        self._lock, self._changing = threading.Lock(), threading.Lock()
        self._upstream: tuple[str, int] | None = None
        self._local = threading.local()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def handle_one_request(self):
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def log_message(self, *_):
                pass

        for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"):
            setattr(Handler, f"do_{method}", lambda handler: proxy._handle(handler))

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, port: int) -> None:
        """Set the port of the server."""
        self._upstream = ("127.0.0.1", port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        """Remove all faults and recorded requests."""
        with self._lock:
            self._faults, self.requests = [], []

    @contextlib.contextmanager
    def failing(self, *faults: Fault) -> Iterator[None]:
        """Apply these faults while the body runs."""
        with self._lock:
            self._faults += faults
        try:
            yield
        finally:
            with self._lock:
                self._faults = [f for f in self._faults if f not in faults]

    def _handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        method, target, body = handler.command, handler.path, _body(handler)
        asked = target + _named_within(target, body)
        with self._lock:
            fault = next((f for f in self._faults if f.takes(method, asked)), None)
        kind, status = fault and fault.kind, None
        answer = functools.partial(_break, handler)
        try:
            if kind == "delay":
                time.sleep(fault.seconds)
            if kind == "reset":
                return
            if kind == "status":
                status = fault.status
                answer = functools.partial(_answer, handler, status, [], f"injected {status}".encode())
                return
            if kind == "before":
                fault.call()
            if kind == "within":
                partly = fail_within(target, body, lambda item: re.search(fault.target, item), fault.status)
                status, headers, content = 200, partly.headers, partly.content
                if partly.body is not None:
                    passed = dict(handler.headers.items())
                    status, headers, content = self._pass_on(method, target, passed, partly.body)
                content = partly.answer(content)
            else:
                status, headers, content = self._pass_on(method, target, dict(handler.headers.items()), body)
            if kind == "after":
                fault.call()
            if kind != "lost":
                answer = functools.partial(_answer, handler, status, headers, content, half=kind == "truncate")
        finally:
            with self._lock:  # a client that has its answer finds its request recorded
                self.requests.append(Request(method, asked, kind, status))
            answer()

    def _pass_on(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, list, bytes]:
        if method in ("GET", "HEAD"):
            return self._ask(method, target, headers, body)
        # A store evaluates conditions one request at a time; emulators check first, and write then.
        with self._changing:
            if self.check and (status := self.check(method, target, headers, self._get_json)):
                return status, [], b"{}"
            return self._ask(method, target, headers, body)

    def _get_json(self, target: str) -> dict | None:
        status, _, content = self._ask("GET", target, {}, b"")
        return json.loads(content) if status == 200 else None

    def _ask(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, list, bytes]:
        passed = {name: value for name, value in headers.items() if name.lower() not in (*_HOP, "expect")}
        if body or method in ("PUT", "POST"):
            passed["Content-Length"] = str(len(body))
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection(*self._upstream, timeout=60)
        try:
            connection.request(method, target, body or None, passed)
            answer = connection.getresponse()
            content = answer.read()
        except (http.client.HTTPException, OSError):
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        # The answer to a HEAD contains the length of a body that it does not include.
        length = [("Content-Length", answer.headers["Content-Length"])] if method == "HEAD" else []
        if self.ahead_s and "Date" in answer.headers:
            answer.headers.replace_header("Date", email.utils.formatdate(time.time() + self.ahead_s, usegmt=True))
        kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in _HOP]
        return answer.status, kept + [h for h in length if h[1] is not None], content


def _named_within(target: str, body: bytes) -> str:
    """Return the object names of the body as a fragment, if the target does not contain them: the name of an upload to
    Google Cloud Storage, or all names of a batch request."""
    if many := asked_within(target, body):
        return f"#{' '.join(many)}"
    if "uploadType=multipart" not in target:
        return ""
    found = re.search(rb'"name": ?"([^"]*)"', body[:10_000])
    return f"#{found[1].decode()}" if found else ""


def _body(handler: http.server.BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    pieces = []
    while size := int(handler.rfile.readline().partition(b";")[0], 16):
        pieces.append(handler.rfile.read(size))
        handler.rfile.readline()
    while handler.rfile.readline().strip():
        pass
    return b"".join(pieces)


def _answer(handler, status: int, headers: list, content: bytes, half: bool = False) -> None:
    handler.send_response_only(status)
    for name, value in headers:
        handler.send_header(name, value)
    if handler.command != "HEAD" and status != 204:
        handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content[: len(content) // 2] if half else content)
    if half:
        _break(handler)


def _break(handler) -> None:
    """Close the connection with a reset, like a machine that has died."""
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def generation_asked(target: str) -> tuple[str, str | None]:
    """Return a target without its query, and the generation that it asks for; None for any."""
    parts = urlsplit(target)
    return parts.path, (parse_qs(parts.query).get("ifGenerationMatch") or [None])[0]
