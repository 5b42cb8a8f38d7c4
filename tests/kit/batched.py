"""Batch requests to both stores: list the requests within, and fail one of them alone."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

_GCS, _S3 = "/batch/storage/v1", re.compile(r"\?delete(&|$|=)")
_ITEM = re.compile(rb"Content-ID: <([^>]*)>\r\n\r\n(\w+) (\S+) HTTP")
_KEY = re.compile(rb"<Object>\s*<Key>([^<]*)</Key>\s*</Object>")
_CODES = {503: "SlowDown", 403: "AccessDenied"}


@dataclasses.dataclass(frozen=True)
class Partly:
    """A batch request of which some parts fail.

    Attributes:
      body: passed on instead of the original body; None if no request is left in it.
      answer: turns the store's answer into the answer to the client.
      headers, content: the answer if nothing is passed on.
    """

    body: bytes | None
    answer: Callable[[bytes], bytes]
    headers: list[tuple[str, str]]
    content: bytes


def asked_within(target: str, body: bytes) -> list[str]:
    """Return the requests within a batch request; an empty list for any other request."""
    if target == _GCS:
        return [item[3].decode() for item in _ITEM.finditer(body)]
    return [key.decode() for key in _KEY.findall(body)] if _S3.search(target) else []


def fail_within(target: str, body: bytes, takes: Callable[[str], bool], status: int) -> Partly:
    """Make a batch request fail in part.

    Args:
      takes: given a request within, returns whether it fails.
      status: status of the requests that fail.
    """
    if target == _GCS:
        border = re.match(rb"--[^\r\n]*", body)[0]
        parts = re.split(rb"(?m)^--[^\r\n]*\r\n", body)[1:]
        doomed = [item[1] for item in _ITEM.finditer(body) if takes(item[3].decode())]
        kept = [part for part in parts if part and not any(b"<%b>" % name in part for name in doomed)]
        said = [b"HTTP/1.1 %d Injected\r\n\r\ninjected\r\n" % status] * len(doomed)
        failed = [b"Content-ID: <response-%b>\r\n\r\n%b" % item for item in zip(doomed, said, strict=True)]

        def answer(content: bytes) -> bytes:
            own = re.match(rb"--[^\r\n]*?(?=--|\r)", content)[0]
            return b"".join(own + b"\r\nContent-Type: application/http\r\n" + part for part in failed) + content

        left = b"".join(border + b"\r\n" + part for part in kept) + border + b"--\r\n" if kept else None
        return Partly(left, answer, [("Content-Type", "multipart/mixed; boundary=x")], b"--x--\r\n")
    doomed = [key for key in _KEY.findall(body) if takes(key.decode())]
    told = b"<Error><Key>%b</Key><Code>%b</Code><Message>injected</Message></Error>"
    said = b"".join(told % (key, _CODES[status].encode()) for key in doomed)
    left = _KEY.sub(lambda item: b"" if item[1] in doomed else item[0], body)
    return Partly(
        left if _KEY.search(left) else None,
        lambda content: content.replace(b"</DeleteResult>", said + b"</DeleteResult>"),
        [("Content-Type", "application/xml")],
        b"<DeleteResult></DeleteResult>",
    )
