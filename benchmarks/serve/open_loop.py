"""Requests of one row at a rate that does not depend on the answers; prints answers/s and the time from when a request
was due to its answer.

    python benchmarks/serve/open_loop.py 127.0.0.1:8501 --rate 3000 --seconds 5

A connection has one request at a time; a request that is due when none is free opens another, up to --connections.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import statistics
import time

import uvloop

ROW = b'{"instances": [{"age": 30, "income": 52000.5, "score": 0.25}]}'
REQUEST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(ROW), ROW)


class Load:
    """The requests that are due, and the connections that are free.

    Attributes:
      good: seconds from due to answered, of answers with status 200.
      refused: number of other answers.
      failed: number of requests whose connection broke.
    """

    def __init__(self, most_connections: int):
        self.due: collections.deque[float] = collections.deque()
        self.free: list[Client] = []
        self.open, self._most = 0, most_connections
        self.good, self.refused, self.failed = list[float](), 0, 0

    def start(self, address: tuple[str, int]) -> None:
        """Send what is due on the connections that are free."""
        while self.due and self.free:
            self.free.pop().send(self.due.popleft())
        loop = asyncio.get_running_loop()
        for _ in range(min(len(self.due), self._most - self.open)):
            self.open += 1
            task = loop.create_task(loop.create_connection(lambda: Client(self), *address))
            task.add_done_callback(lambda done: done.exception())


class Client(asyncio.Protocol):
    """A connection."""

    def __init__(self, load: Load):
        self._load, self._since, self._data = load, 0.0, b""

    def connection_made(self, transport):
        self._transport = transport
        self._next()

    def send(self, due: float) -> None:
        """Send a request."""
        self._since = due
        self._transport.write(REQUEST)

    def _next(self) -> None:
        if self._load.due:
            self.send(self._load.due.popleft())
        else:
            self._load.free.append(self)

    def data_received(self, data):
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end or len(rest) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        if self._data.startswith(b"HTTP/1.1 200"):
            self._load.good.append(time.perf_counter() - self._since)
        else:
            self._load.refused += 1
        self._data, self._since = b"", 0.0
        self._next()

    def connection_lost(self, error):
        self._load.open -= 1
        self._load.failed += bool(self._since)
        if self in self._load.free:
            self._load.free.remove(self)


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    host, port = arguments.address.rsplit(":", 1)
    load = Load(arguments.connections)
    began, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < arguments.seconds:
        wanted = int(now * arguments.rate)
        load.due.extend(began + k / arguments.rate for k in range(sent, wanted))
        sent = wanted
        load.start((host, int(port)))
        await asyncio.sleep(0.002)
    good = sorted(load.good)
    return {
        "sent_per_s": sent / now,
        "good_per_s": len(good) / now,
        "refused": load.refused,
        "failed": load.failed,
        "unsent": len(load.due),
        "p50_ms": 1000 * statistics.median(good or [0.0]),
        "p99_ms": 1000 * (good[int(len(good) * 0.99)] if good else 0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=900)
    uvloop.install()
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


if __name__ == "__main__":
    main()
