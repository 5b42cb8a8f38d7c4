"""A line of JSON for each request: what became of it, and how long each stage took. No value of a row is in it.

The lines are formatted here: structlog takes some fifty microseconds for each, a quarter of what a request costs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import random
import select
import time
from collections.abc import Callable
from typing import Any

import orjson

from beam_score.pipeline.serve.answering.answer import STAGES, Answer, Request
from beam_score.pipeline.serve.reports.accounts import Account, Accounts

_FLUSH_S, _END_S = 0.2, 1.0
_MOST_LINES = 20_000

# Ids, protocols and routes contain nothing that JSON would escape.
_REQUEST = (
    '{"event":"request","timestamp":"%s","id":"%s","protocol":"%s","route":"%s","model":%s,"version":%d,"signature":%s,'
    '"code":%d,"rows":%d,"predicted":%d,"rejected":%s,"batch_rows":%d,"bytes_in":%d,"bytes_out":%d,"ms":{%s"total":%.3f}}\n'
)
_MS = "".join(f'"{stage}":%.3f,' for stage in STAGES)


def writer(descriptor: int) -> Callable[[str], None]:
    """Return a function that writes lines to a pipe or a file, and waits outside of any lock while it is full.

    A pipe that can be written to takes PIPE_BUF bytes at once, unbroken by what other processes write.
    """
    room = select.poll()
    room.register(descriptor, select.POLLOUT)

    def write(text: str) -> None:
        chunk = b""
        for line in [*text.encode().splitlines(keepends=True), b""]:
            if chunk and (not line or len(chunk) + len(line) > select.PIPE_BUF):
                room.poll()
                os.write(descriptor, chunk)
                chunk = b""
            chunk += line

    return write


class RequestLog:
    """Collects the lines of some milliseconds, and writes them at once, in a thread: a pipe that nobody reads must not
    stop the server. While it is full, further lines are counted and not kept.

    Args:
      write: takes text.
      sample: the share of requests that are logged.
    """

    def __init__(self, write: Callable[[str], object], sample: float):
        self._write, self._sample = write, sample
        self._lines: list[str] = []
        self._texts: dict[str, str] = {}
        self._second, self._shown = 0, ""
        self._dropped = 0
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "log")
        self._writing: asyncio.Future[object] | None = None

    def observe(self, account: Account, request: Request, answer: Answer, protocol: str) -> None:
        """Log a request that has been answered."""
        if random.random() >= self._sample:
            return
        reasons = "{}"
        if answer.reasons:
            counts: dict[str, int] = {}
            for reason, _, count in answer.reasons:
                counts[reason] = counts.get(reason, 0) + count
            reasons = orjson.dumps(counts).decode()
        stages = answer.stages
        line = _REQUEST % (
            self._now(),
            request.id,
            protocol,
            request.form,
            self._text(account.model),
            account.version,
            self._text(answer.signature),
            answer.status,
            answer.received,
            answer.predicted,
            reasons,
            answer.batch_rows,
            len(request.body),
            len(answer.body),
            _MS % (stages[0] * 1e3, stages[1] * 1e3, stages[2] * 1e3, stages[3] * 1e3) if stages else "",
            answer.seconds * 1e3,
        )
        self._add(line)

    def refused(self, id_: str, protocol: str, status: int) -> None:
        """Log a request that was refused before it reached a version."""
        if random.random() < self._sample:
            self._say("request", id=id_, protocol=protocol, code=status)

    async def end(self, accounts: Accounts) -> None:
        """Log the account of every version, and write what is left."""
        for account in accounts:
            self._say("account", model=account.model, version=account.version, **account.sums())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                while self._lines or self._writing is not None:
                    self._flush()
                    await asyncio.sleep(0.01)

    def _say(self, event: str, **fields: Any) -> None:
        self._add(orjson.dumps({"event": event, "timestamp": self._now(), **fields}).decode() + "\n")

    def _add(self, line: str) -> None:
        if len(self._lines) >= _MOST_LINES:
            self._dropped += 1
            return
        self._lines.append(line)
        if len(self._lines) == 1 and self._writing is None:
            asyncio.get_running_loop().call_later(_FLUSH_S, self._flush)

    def _flush(self) -> None:
        if self._writing is not None or not self._lines:
            return
        lines, self._lines = self._lines, []
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._say("dropped", lines=dropped)
        self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, "".join(lines))
        self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[object]) -> None:
        writing.exception()  # of a closed pipe: nobody reads the log
        self._writing = None
        if self._lines:
            asyncio.get_running_loop().call_later(_FLUSH_S, self._flush)

    def _text(self, name: str) -> str:
        """Return a name as JSON: of a model or a signature, so there are few."""
        if name not in self._texts:
            self._texts[name] = orjson.dumps(name).decode()
        return self._texts[name]

    def _now(self) -> str:
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        return f"{self._shown}.{int(now % 1 * 1000):03d}Z"
