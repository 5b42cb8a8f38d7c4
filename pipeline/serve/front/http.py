"""HTTP: routes to answers, as an ASGI application."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from beam_score.pipeline.serve.answering.answers import Answer, Request, refusal
from beam_score.pipeline.serve.front.queue import Batches

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PREDICT = re.compile(r"/predict|/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+))?:predict", re.IGNORECASE)


class Application:
    """The ASGI application."""

    def __init__(self, name: str, batches: Batches):
        self._name, self._batches = name, batches
        self._number = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self._number += 1
        id_ = f"{self._number:x}"
        path, method = scope["path"], scope["method"]
        if method == "POST" and _PREDICT.fullmatch(path):
            answer = await self._batches.answer(Request(id_, await _body(receive)))
        elif path == "/healthz":
            answer = Answer(200, b'{"status":"ok"}')
        else:
            answer = refusal(404, f"no such route: {method} {path[:200]}", id_)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.body)), (b"x-request-id", id_.encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body = message.get("body", b"")
    if not message.get("more_body"):
        return body
    parts = [body]
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    return b"".join(parts)
