"""What a call of Predict costs if the server answers at once with bytes that are ready: the limit of any service.

Three servers answer 12 kB with 18 kB, the sizes of 1,024 rows of the demo: grpc.aio on uvloop, as `beam-score serve`;
grpc with threads; and HTTP/2 in some lines of Python on uvloop, which do not read the headers of a call. Prints calls/s
and the CPU microseconds of a call in server and client; the client is grpc.aio.

python benchmarks/serve/rpc_limit.py --rounds 3 --seconds 2 --at-once 4
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import grpc
import uvloop

SERVICE, METHOD = "tensorflow.serving.PredictionService", "Predict"
ASKED, ANSWER = bytes(12_400), bytes(17_800)
KINDS = ("grpc.aio", "grpc with threads", "bare HTTP/2")


def handlers(predict: Any) -> tuple[Any, ...]:
    method = grpc.unary_unary_rpc_method_handler(predict)
    return (grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),)


async def serve_aio() -> None:
    async def predict(body: bytes, context: Any) -> bytes:
        return ANSWER

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers(predict))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


def serve_threads() -> None:
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(handlers(lambda body, context: ANSWER))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Return a frame of HTTP/2 (RFC 9113, 4.1)."""
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


def field(name: bytes, value: bytes) -> bytes:
    """Return a header that is not kept in a table (RFC 7541, 6.2.2)."""
    return b"\0%c%b%c%b" % (len(name), name, len(value), value)


DATA, HEADERS, SETTINGS, PING, WINDOW = 0, 1, 4, 6, 8
END, END_HEADERS, ACK = 1, 4, 1
WINDOW_BYTES = 1 << 30
HEAD = b"\x88" + field(b"content-type", b"application/grpc")  # \x88: `:status: 200` of the static table
TRAILERS = field(b"grpc-status", b"0") + field(b"x-request-id", b"0" * 32)
SENT = b"\0" + len(ANSWER).to_bytes(4, "big") + ANSWER


class Bare(asyncio.Protocol):
    """A connection. Windows of the client are assumed to be open."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._data, self._taken = transport, b"", 0
        self._bodies: dict[int, list[bytes]] = {}
        window = WINDOW_BYTES.to_bytes(4, "big")
        transport.write(frame(SETTINGS, 0, 0, b"\0\x04" + window) + frame(WINDOW, 0, 0, window))
        self._at = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        data, at = self._data + data, self._at
        while len(data) >= at + 9 and len(data) >= (end := at + 9 + int.from_bytes(data[at : at + 3], "big")):
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            self._take(data[at + 3], data[at + 4], stream, data[at + 9 : end])
            at = end
        self._data, self._at = (data[at:], 0) if at <= len(data) else (data, at)

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == HEADERS:
            self._bodies[stream] = []
        elif kind == DATA:
            self._bodies[stream].append(content)
            self._taken += len(content)
            if self._taken > WINDOW_BYTES // 2:
                self._transport.write(frame(WINDOW, 0, 0, self._taken.to_bytes(4, "big")))
                self._taken = 0
            if flags & END:
                asyncio.get_running_loop().create_task(self._answer(stream, b"".join(self._bodies.pop(stream))))
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._transport.write(frame(kind, ACK, 0, content if kind == PING else b""))

    async def _answer(self, stream: int, body: bytes) -> None:
        parts = [frame(DATA, 0, stream, SENT[at : at + 16_384]) for at in range(0, len(SENT), 16_384)]
        head, trailers = frame(HEADERS, END_HEADERS, stream, HEAD), frame(HEADERS, END_HEADERS | END, stream, TRAILERS)
        self._transport.write(b"".join([head, *parts, trailers]))


async def serve_bare() -> None:
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def cpu_s(process: int) -> float:
    """Return user and system time of a process: see proc_pid_stat(5)."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(port: int, process: int, seconds: float, at_once: int) -> tuple[float, float, float]:
    """Return calls/s, and CPU microseconds a call of server and client."""
    calls = 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/{METHOD}")
        assert await call(ASKED) == ANSWER
        began, server, client = time.perf_counter(), cpu_s(process), time.process_time()

        async def loop() -> None:
            nonlocal calls
            while time.perf_counter() < began + seconds:
                await call(ASKED)
                calls += 1

        await asyncio.gather(*(loop() for _ in range(at_once)))
        whole, server, client = time.perf_counter() - began, cpu_s(process) - server, time.process_time() - client
    return calls / whole, 1e6 * server / calls, 1e6 * client / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--serve", choices=KINDS, help="be a server, and print the port")
    arguments = parser.parse_args()
    if arguments.serve is None:
        compare(arguments)
    elif arguments.serve == "grpc with threads":
        serve_threads()
    else:
        uvloop.run(serve_aio() if arguments.serve == "grpc.aio" else serve_bare())


def compare(arguments: argparse.Namespace) -> None:
    found: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(arguments.rounds):
        for kind in KINDS:
            command = [sys.executable, __file__, "--serve", kind]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                port = int(process.stdout.readline())
                found[kind].append(asyncio.run(load(port, process.pid, arguments.seconds, arguments.at_once)))
                process.terminate()
    print("| server | calls/s | CPU µs a call: server | client |\n| --- | --- | --- | --- |")
    for kind, runs in found.items():
        cells = (f"{statistics.median(own):,.0f} ({min(own):,.0f}-{max(own):,.0f})" for own in zip(*runs, strict=True))
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
