"""HTTP/1.1 on a socket: whatever the pieces in which requests come, each is answered, in order, once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import socket
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_score.pipeline.serve.http1.connection import ClientLimits
from beam_score.pipeline.serve.http1.listener import Listener


class App:
    """Answers with what it was asked. `/early` is answered before its body is read; `/fails` raises; `/hold` waits."""

    def __init__(self):
        self.cancelled = self.began = 0
        self.held, self.exchanges, self.headers = [], weakref.WeakSet(), {}

    def __call__(self, exchange):
        self.began += 1
        self.exchanges.add(exchange)
        self.headers = exchange.headers
        if exchange.path == "/early":
            answered(exchange, 413)
        else:
            exchange.read(Echo(self, exchange), 1 << 30)

    def release(self):
        for exchange, body in self.held:
            answered(exchange, 200, body)


class Echo:
    def __init__(self, app, exchange):
        self.app, self.exchange = app, exchange

    def body(self, data):
        if self.exchange.path == "/fails":
            raise ValueError
        if self.exchange.path == "/hold":
            self.app.held.append((self.exchange, data))
        else:
            answered(self.exchange, 200, data)

    def refuse(self, error):
        answered(self.exchange, error.status)

    def gone(self):
        self.app.cancelled += 1


def answered(exchange, status: int, body: bytes = b"") -> None:
    said = json.dumps([exchange.method, exchange.path, exchange.query.decode(), len(body), body[:20].decode()])
    exchange.answer(status, b"content-length: %d\r\nx-n: 1\r\n" % len(said), said.encode())


@contextlib.asynccontextmanager
async def listening(drain_s: float = 5.0, limits: ClientLimits | None = None):
    app = App()
    with socket.create_server(("127.0.0.1", 0)) as bound:
        listener = Listener(app, [bound], drain_s, limits)
        serving = asyncio.create_task(listener.serve())
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        yield app, listener, serving, reader, writer
        writer.close()
        listener.end()
        await serving


async def answer(reader, head: bool = False):
    """Return the status, the headers and the body of the next answer."""
    line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    body = b"" if head else await reader.readexactly(int(headers["content-length"]))
    return int(line.split()[1]), headers, json.loads(body or b"null")


def request(path: str = "/a", body: bytes = b"", method: str = "POST", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def run(test):
    return asyncio.run(test)


CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
STREAM = [
    (request("/one?q=1", b"{}"), [200, "POST", "/one", "q=1", 2, "{}"]),
    (CHUNKED, [200, "POST", "/c", "", 5, "abcde"]),
    (request("/%41%2f", method="GET"), [200, "GET", "/%41%2f", "", 0, ""]),
    (request("/up", b"12", more="Connection: Upgrade\r\nUpgrade: h2c\r\n"), [200, "POST", "/up", "", 2, "12"]),
    (request("http://host/abs", b"x"), [200, "POST", "/abs", "", 1, "x"]),
    (request("/big", b"y" * 300_000), [200, "POST", "/big", "", 300_000, "y" * 20]),
    (request("/last", b"z", more="Connection: close\r\n"), [200, "POST", "/last", "", 1, "z"]),
]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 1200), max_size=8), st.permutations(range(len(STREAM) - 1)))
def test_requests_are_answered_in_order_wherever_their_bytes_are_cut(cuts, order):
    async def test():
        stream = [*(STREAM[k] for k in order), STREAM[-1]]
        data = b"".join(request for request, _ in stream)
        async with listening() as (app, _, _, reader, writer):
            for start, end in itertools.pairwise([0, *sorted(cuts), len(data)]):
                writer.write(data[start:end])
                await asyncio.sleep(0.001)
            for _, expected in stream:
                status, headers, said = await answer(reader)
                assert [status, *said] == expected
            assert headers["connection"] == "close" and await reader.read() == b""
            assert app.began == len(stream)

    run(test())


def test_a_client_that_asks_may_send_its_body():
    async def test():
        async with listening() as (_, _, _, reader, writer):
            whole = request("/a", b"body", more="Expect: 100-continue\r\n")
            writer.write(whole[:-4])
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(whole[-4:])
            assert (await answer(reader))[2][3] == 4
            writer.write(whole)  # one that does not wait
            assert (await answer(reader))[2][3] == 4
            writer.write(request("/a", b"body", more="Expect: 100-Continue\r\n")[:-4])
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"body" + whole.replace(b"/1.1", b"/1.0"))
            assert [(await answer(reader))[2][3] for _ in range(2)] == [4, 4]

    run(test())


def test_an_answer_to_head_has_no_body_and_http_1_0_closes_unless_asked():
    async def test():
        async with listening() as (_, _, _, reader, writer):
            writer.write(request(method="HEAD"))
            assert int((await answer(reader, head=True))[1]["content-length"]) > 0
            writer.write(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await answer(reader))[1]["connection"] == "keep-alive"
            writer.write(b"GET /a HTTP/1.0\r\n\r\n")
            assert (await answer(reader))[1]["connection"] == "close" and await reader.read() == b""

    run(test())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000, 431),
        (b"GET /" + b"x" * 20_000, 431),
    ],
)
def test_what_is_not_a_request_is_refused_and_the_connection_closed(data, status):
    async def test():
        async with listening() as (_, _, _, reader, writer):
            writer.write(request())
            assert (await answer(reader))[0] == 200
            writer.write(data)
            found, headers, _ = await answer(reader)
            assert found == status and headers["connection"] == "close" and await reader.read() == b""
        async with listening() as (_, _, _, reader, writer):
            writer.write(data)
            found, headers, _ = await answer(reader)
            assert found == status and headers["connection"] == "close" and await reader.read() == b""

    run(test())


def test_an_answer_before_the_body_reaches_a_client_that_still_sends():
    async def test():
        async with listening() as (_, _, _, reader, writer):
            writer.write(request("/early", b"x" * 5_000_000))
            status, headers, _ = await answer(reader)
            assert status == 413 and headers["connection"] == "close"

    run(test())


def test_a_request_that_fails_is_answered_and_its_connection_closed():
    async def test():
        async with listening() as (_, _, _, reader, writer):
            writer.write(request("/fails") + request())
            assert (await answer(reader))[0] == 500 and await reader.read() == b""

    run(test())


def test_the_request_of_a_client_that_goes_is_cancelled():
    async def test():
        async with listening() as (app, _, _, _, writer):
            writer.write(request("/hold"))
            while not app.began:
                await asyncio.sleep(0.01)
            writer.close()
            while not app.cancelled:
                await asyncio.sleep(0.01)

    run(test())


def test_what_was_accepted_is_answered_at_the_end_and_idle_connections_are_closed():
    async def test():
        async with listening() as (app, listener, serving, reader, writer):
            idle, _ = await asyncio.open_connection(*writer.get_extra_info("peername"))
            writer.write(request("/hold") + request("/a"))
            while not app.began:
                await asyncio.sleep(0.01)
            listener.end()
            assert await idle.read() == b""
            app.release()
            assert [(await answer(reader))[2][1] for _ in range(2)] == ["/hold", "/a"]
            assert await reader.read() == b""
            await serving

    run(test())


def test_a_client_that_has_connected_before_the_end_is_answered():
    async def test():
        async with listening() as (_, listener, serving, reader, writer):
            await asyncio.sleep(0.05)
            listener.end()
            await asyncio.sleep(0.05)
            writer.write(request("/a"))
            status, headers, _ = await answer(reader)
            assert (status, headers["connection"]) == (200, "close")
            await serving

    run(test())


def test_a_request_is_freed_once_it_is_answered_or_its_client_has_gone():
    async def test():
        async with listening() as (app, _, _, reader, writer):
            seen = weakref.WeakSet()
            app.exchanges = seen
            whole = request("/a", b"x" * 200_000)
            for data in (whole, CHUNKED, request("/early", b"b")):
                writer.write(data)
                await answer(reader)
            other = await asyncio.open_connection(*writer.get_extra_info("peername"))
            other[1].write(whole[:-1])
            while app.began < 4:
                await asyncio.sleep(0.01)
            other[1].close()
            while not app.cancelled:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert app.began == 4 and not len(seen)

    gc.collect()
    gc.disable()  # a cycle would be found only after many requests, whose bodies are kept until then
    try:
        run(test())
    finally:
        gc.enable()


def test_a_trailer_is_no_header():
    async def test():
        async with listening() as (app, _, _, reader, writer):
            writer.write(CHUNKED.replace(b"Trailer: t", b"Authorization: t"))
            await answer(reader)
            assert b"authorization" not in app.headers

    run(test())


def test_a_client_is_not_slow_while_its_requests_wait_for_each_other():
    async def test():
        async with listening(limits=ClientLimits(body_s=0.3)) as (app, _, _, reader, writer):
            body = b"y" * 3_000_000
            writer.write(request("/hold") + request("/big", body)[:200_000])
            await asyncio.sleep(1.5)  # the second is not read meanwhile
            app.release()
            writer.write(request("/big", body)[200_000:])
            assert [(await answer(reader))[0] for _ in range(2)] == [200, 200]

    run(test())


def test_the_end_does_not_wait_for_ever():
    async def test():
        async with listening(drain_s=0.1) as (app, listener, serving, reader, writer):
            writer.write(request("/hold"))
            while not app.began:
                await asyncio.sleep(0.01)
            listener.end()
            await serving
            assert await reader.read() == b"" and app.cancelled == 1

    run(test())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", None),
        (b"POST /a HTTP/1.1\r\n", 408),
        (request("/a", b"body")[:-1], 408),
        (request("/a", b"b") * 2, None),
        (request("/a", b"b") + b"GET /b HTT", None),
    ],
)
def test_a_slow_client_loses_its_connection(data, status):
    async def test():
        async with listening(limits=ClientLimits(head_s=0.2, body_s=0.2, idle_s=0.2)) as (_, _, _, reader, writer):
            writer.write(data)
            for _ in range(data.count(b"\r\n\r\nb") if status is None else 0):
                assert (await answer(reader))[0] == 200
            if status is not None:
                assert (await answer(reader))[0] == status
            rest = await reader.read()
            assert rest == b"" or rest.startswith(b"HTTP/1.1 408")

    run(test())


def test_more_connections_than_allowed_are_refused():
    async def test():
        async with listening(limits=ClientLimits(connections=1)) as (_, _, _, reader, writer):
            writer.write(request())
            assert (await answer(reader))[0] == 200
            more, _ = await asyncio.open_connection(*writer.get_extra_info("peername"))
            status, headers, _ = await answer(more)
            assert (status, headers["retry-after"]) == (503, "1") and await more.read() == b""
            writer.write(request())
            assert (await answer(reader))[0] == 200

    run(test())
