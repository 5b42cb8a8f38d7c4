"""Writes parts and receipt of a split while the next split is scored: in a store each write waits for the network, and
a chain of steps is serial in its thread."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from beam_score.transforms.durable import storage

_AT_ONCE = 4
"""A split has two kinds of parts and a receipt; more threads would wait for these."""

_SPLITS = 1
"""Number of splits that are written while one is scored: each keeps its parts in memory."""

Write = Callable[[storage.Place, Sequence[bytes | memoryview]], Callable[[], None]]
"""Writes a file, or starts to; the returned function waits until the file is written, and raises errors."""


def write_at_once(path: storage.Place, pieces: Sequence[bytes | memoryview]) -> Callable[[], None]:
    """Write a file synchronously; see `Write`."""
    storage.write_new(path, *pieces)
    return nothing_to_wait_for


def nothing_to_wait_for() -> None:
    pass


class AtOnce:
    """`Behind` for a disk: writes synchronously."""

    write = staticmethod(write_at_once)

    def settle(self, split: int, settle: Callable[[], None]) -> Iterator[int]:
        settle()
        yield split

    def close(self) -> list[int]:
        return []


class Behind:
    """The pending writes of one writer, in one bundle. A split is emitted only after its receipt was written; errors
    are raised at the writer's next call."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, "write-behind")
        self._under_way: collections.deque[tuple[int, Future[None]]] = collections.deque()

    def write(self, path: storage.Place, pieces: Sequence[bytes | memoryview]) -> Callable[[], None]:
        """See `transforms.durable.write_behind.Write`."""
        return self._threads.submit(storage.write_new, path, *pieces).result

    def settle(self, split: int, settle: Callable[[], None]) -> Iterator[int]:
        """Start to settle a split, which waits for its pending parts; yield the splits that are settled."""
        # Tasks start in order of submission: the ones that this task waits for have started before it.
        self._under_way.append((split, self._threads.submit(settle)))
        while len(self._under_way) > _SPLITS:
            yield self._first()

    def close(self) -> list[int]:
        """Wait for all pending splits and return them."""
        with self._threads:
            return [self._first() for _ in range(len(self._under_way))]

    def _first(self) -> int:
        split, settled = self._under_way.popleft()
        settled.result()
        return split
