"""Splits whose parts and receipt are written while the next is scored: on a store each of these waits for a network,
and a chain of steps is serial in its thread."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from beam_score.transforms.durable import storage

_AT_ONCE = 4
"""Two kinds of parts, and a receipt, of a split; more would wait for these."""

_SPLITS = 1
"""So many are under way beside the one that is scored: each holds its parts in memory."""

Write = Callable[[storage.Place, Sequence[bytes | memoryview]], Callable[[], None]]
"""Writes a file, or begins to; what it gives waits until that is done, and raises what went wrong."""


def write_at_once(path: storage.Place, pieces: Sequence[bytes | memoryview]) -> Callable[[], None]:
    """A `Write` that there is nothing to wait for any more."""
    storage.write_new(path, *pieces)
    return nothing_to_wait_for


def nothing_to_wait_for() -> None:
    pass


class AtOnce:
    """`Behind`, for a disk: there is nothing to wait for."""

    write = staticmethod(write_at_once)

    def settle(self, split: int, settle: Callable[[], None]) -> Iterator[int]:
        settle()
        yield split

    def close(self) -> list[int]:
        return []


class Behind:
    """What one writer has under way, of one bundle. Nothing of it counts before it is done: a split is given on once
    its receipt stands, and what goes wrong is raised where the writer comes by next."""

    def __init__(self):
        self._threads = ThreadPoolExecutor(_AT_ONCE, "write-behind")
        self._under_way: collections.deque[tuple[int, Future[None]]] = collections.deque()

    def write(self, path: storage.Place, pieces: Sequence[bytes | memoryview]) -> Callable[[], None]:
        """See `transforms.durable.write_behind.Write`."""
        return self._threads.submit(storage.write_new, path, *pieces).result

    def settle(self, split: int, settle: Callable[[], None]) -> Iterator[int]:
        """Has a split settled, which waits for parts that are under way; gives those that are."""
        # Tasks begin in the order in which they come: what this one waits for has begun before it.
        self._under_way.append((split, self._threads.submit(settle)))
        while len(self._under_way) > _SPLITS:
            yield self._first()

    def close(self) -> list[int]:
        """Waits for all that is under way, and gives it."""
        with self._threads:
            return [self._first() for _ in range(len(self._under_way))]

    def _first(self) -> int:
        split, settled = self._under_way.popleft()
        settled.result()
        return split
