"""Requests to Google Cloud Storage without its library's classes: reads, and batches of changes.

A launch reads the head of each file, and a commit copies and removes an object for each part: over hundreds of
thousands of requests, the CPU time per request matters. The reads use `transforms.stores.kept_connections`. The
interface is the JSON API: https://cloud.google.com/storage/docs/json_api,
https://cloud.google.com/storage/docs/batch.
"""

from __future__ import annotations

import base64
import email
import http.client
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import google_crc32c
import requests
import urllib3
from google.api_core import exceptions as api
from google.auth.credentials import Credentials
from google.auth.transport.urllib3 import AuthorizedHttp, Request
from google.cloud.storage.exceptions import DataCorruption

from beam_score.transforms.stores.kept_connections import Answer, Connections
from beam_score.transforms.stores.objects import HEADS_AT_ONCE, StoreClock

BATCH = 100
"""Maximum number of calls in one request; the store's limit."""

LOST = urllib3.exceptions.HTTPError
"""Raised if a connection breaks, or a response is incomplete."""

_TIMEOUT = urllib3.Timeout(connect=10, read=60)
_EXPIRED = 401  # then the library refreshes the credentials
_BOUNDARY = "one-of-many-calls"
_ANSWER_NUMBER = re.compile(r"(\d+)>?$")


class Requests:
    """Connections to the store, safe to use from many threads.

    Args:
      base: URL of the interface.
      credentials: sent with each request.
      clock: updated with the dates of the responses.
    """

    def __init__(self, base: str, credentials: Credentials, clock: StoreClock):
        self._base, self._clock, self._credentials = base.rstrip("/"), clock, credentials
        own = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        ca_certs = own or requests.utils.DEFAULT_CA_BUNDLE_PATH
        proxy = requests.utils.select_proxy(self._base, requests.utils.get_environ_proxies(self._base))
        pool = _pool(ca_certs, proxy)
        self._http, self._refresh = AuthorizedHttp(credentials, pool), Request(pool)
        self._kept = None if proxy else Connections(self._base, ca_certs)

    def read(self, bucket: str, key: str, start: int, end: int | None, generation: str | None) -> bytes:
        """Return bytes of an object as they are stored. A whole object is compared with the store's checksum.

        Args:
          start, end: the range, without `end`; None for the object's end.
          generation: the generation to read; None for any.

        Raises:
          PreconditionFailed, or another of google.api_core.exceptions: an error response.
          DataCorruption: the content does not match the store's checksum.
        """
        whole = start == 0 and end is None
        query = "?alt=media" if generation is None else f"?alt=media&ifGenerationMatch={generation}"
        headers = {"Accept-Encoding": "gzip"}  # without it the store decompresses gzip objects
        if not whole:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        answer = self._get(f"/download{object_path(bucket, key)}{query}", headers)
        # Some emulators ignore the condition; the response states its generation.
        found = answer.headers.get("x-goog-generation")
        if None not in (generation, found) and found != generation:
            raise api.PreconditionFailed(f"the object is at generation {found}")
        crc = re.search(r"crc32c=([\w+/=]+)", answer.headers.get("x-goog-hash", ""))
        if whole and crc and base64.b64decode(crc[1]) != google_crc32c.value(answer.data).to_bytes(4, "big"):
            raise DataCorruption(None, "the content does not match its checksum")
        return answer.data

    def many(self, calls: Sequence[tuple[str, str]]) -> list[tuple[int, str]]:
        """Make up to `BATCH` calls in one request. Each call succeeds or fails independently.

        Args:
          calls: (method, path) of each; without content.

        Returns:
          status and content of each response, in order; 503 for a missing response.
        """
        lines = []
        for number, (method, path) in enumerate(calls):
            lines += [f"--{_BOUNDARY}", "Content-Type: application/http", f"Content-ID: <call+{number}>", ""]
            lines += [f"{method} {path} HTTP/1.1", "Content-Length: 0", "", ""]
        body = "\r\n".join([*lines, f"--{_BOUNDARY}--", ""])
        kind = {"Content-Type": f"multipart/mixed; boundary={_BOUNDARY}"}
        answer = self._ask("POST", "/batch/storage/v1", body=body.encode(), headers=kind)
        told = b"Content-Type: " + answer.headers.get("Content-Type", "").encode() + b"\r\n\r\n" + answer.data
        found = [(503, "no response")] * len(calls)
        for part in email.message_from_bytes(told).walk():
            call, content = _ANSWER_NUMBER.search(part.get("Content-ID", "")), part.get_payload()
            if call and isinstance(content, str):  # a list for the message that contains the others
                line, _, rest = content.partition("\n")
                found[int(call[1])] = int(line.split(" ", 2)[1]), rest.replace("\r", "").partition("\n\n")[2].strip()
        return found

    def _get(self, path: str, headers: Mapping[str, str]) -> Answer:
        if self._kept is not None:
            signed = dict(headers)
            self._credentials.before_request(self._refresh, "GET", self._base + path, signed)
            answer = self._kept.get(path, signed)
            if answer is not None and answer.status != _EXPIRED:
                self._clock.heard(answer.headers.get("date"))
                _check(answer.status, answer.data)
                return answer
        found = self._ask("GET", path, headers=headers)
        return Answer(found.status, {name.lower(): value for name, value in found.headers.items()}, found.data)

    def _ask(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        answer = self._http.request(
            method, self._base + path, timeout=_TIMEOUT, retries=False, decode_content=False, **more
        )
        self._clock.heard(answer.headers.get("Date"))
        _check(answer.status, answer.data)
        return answer


def _check(status: int, content: bytes) -> None:
    """Raise the error of a response, if it is one."""
    if not 200 <= status < 300:
        text = content.decode(errors="replace").strip()
        raise api.from_http_status(status, text or http.client.responses.get(status, ""))


def object_path(bucket: str, key: str) -> str:
    """Return the path of an object in the interface."""
    return f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(key, safe='')}"


def _pool(ca_certs: str, proxy: str | None) -> urllib3.PoolManager:
    """Return a connection pool that honours the environment (CA bundle, proxies) as `requests` does."""
    if proxy:
        return urllib3.ProxyManager(proxy, maxsize=HEADS_AT_ONCE, ca_certs=ca_certs)
    return urllib3.PoolManager(maxsize=HEADS_AT_ONCE, ca_certs=ca_certs)
