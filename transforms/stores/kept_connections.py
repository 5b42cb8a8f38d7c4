"""GET requests over kept connections, for a launch that reads the heads of very many objects.

Through urllib3 a request takes three times the CPU time, most of it for headers, which it and `http.client` parse with
the classes for e-mail. Only a plain response is handled here. After anything else (chunks, a connection that broke or
was closed by the server, credentials that have expired) the caller makes the request again through its library.
"""

from __future__ import annotations

import collections
import dataclasses
import http.client
import re
import ssl
from collections.abc import Mapping
from typing import IO
from urllib.parse import urlsplit

_CONNECT_S, _READ_S = 10, 60
_LONGEST_LINE = 1 << 16
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})\b")


@dataclasses.dataclass(frozen=True)
class Answer:
    """A response.

    Attributes:
      status: 200, or another.
      headers: by lower-case name; values of the same name are joined with commas.
      data: the content.
    """

    status: int
    headers: Mapping[str, str]
    data: bytes


class Connections:
    """Connections to one server; safe to use from many threads, each with a connection of its own meanwhile.

    Args:
      base: URL of the server.
      ca_certs: path of the certificates for https.
    """

    def __init__(self, base: str, ca_certs: str):
        url = urlsplit(base)
        self._host, self._port, self._netloc, self._folder = url.hostname or "", url.port, url.netloc, url.path
        self._tls = ssl.create_default_context(cafile=ca_certs) if url.scheme == "https" else None
        self._free: collections.deque[_Connection] = collections.deque()

    def get(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        """Return a response; None if it is not plain.

        Args:
          path: with its query, quoted.
        """
        lines = [f"GET {self._folder}{path} HTTP/1.1", f"Host: {self._netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        request = "\r\n".join([*lines, "", ""]).encode("latin-1")
        connection = None
        try:
            connection = self._connection()
            answer = connection.get(request)
        except (OSError, ValueError, http.client.HTTPException):
            answer = None
        if answer is not None and answer.headers.get("connection", "").lower() != "close":
            assert connection is not None  # it has answered
            self._free.append(connection)
        elif connection is not None:
            connection.close()
        return answer

    def _connection(self) -> _Connection:
        try:
            return self._free.pop()
        except IndexError:
            return _Connection(self._host, self._port, self._tls)


class _Connection:
    def __init__(self, host: str, port: int | None, tls: ssl.SSLContext | None):
        if tls is None:
            self._http = http.client.HTTPConnection(host, port, timeout=_CONNECT_S)
        else:
            self._http = http.client.HTTPSConnection(host, port, timeout=_CONNECT_S, context=tls)
        self._http.connect()
        self._http.sock.settimeout(_READ_S)
        self._file: IO[bytes] = self._http.sock.makefile("rb")

    def get(self, request: bytes) -> Answer | None:
        """Return the response to a request; None if it is not plain. Raises OSError, ValueError."""
        self._http.sock.sendall(request)
        status = _STATUS.match(self._file.readline(_LONGEST_LINE))
        headers: dict[str, str] = {}
        while (line := self._file.readline(_LONGEST_LINE).rstrip(b"\r\n")) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if status is None or "transfer-encoding" in headers or "content-length" not in headers:
            return None
        length = int(headers["content-length"])
        data = self._file.read(length)
        return Answer(int(status[1]), headers, data) if len(data) == length else None

    def close(self) -> None:
        self._file.close()
        self._http.close()
