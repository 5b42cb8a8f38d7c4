"""Process-wide cache of object contents: headers and footers, which each range of a file needs, and whole small objects
that are read now or next."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.stores.fetch import fetch, submit
from beam_score.transforms.stores.objects import is_object
from beam_score.transforms.stores.versions import of_object

WHOLE_BYTES = 8 << 20
"""An object of at most this size is fetched in one request when its rows are read."""

_RANGES_AHEAD, _BYTES_AHEAD = 16, 16 << 20
"""Maximum number, and total bytes, of a split's small objects that are fetched in advance."""

_ENDS_HELD = 1024


class Ahead:
    """Read-ahead of the small objects of some ranges, each fetched whole in one request; a context manager."""

    def __init__(self, ranges: Sequence[FileRange]):
        self._ranges = [r for r in ranges if _is_whole(r)]
        self._begun: collections.deque[FileRange] = collections.deque()
        self._next = 0

    def turn_of(self, range_: FileRange) -> None:
        """Begin to read a range: fetch it and some of the ranges after it; release the ranges before it."""
        if not _is_whole(range_):
            return
        while self._begun and self._begun[0] is not range_:
            self._release(self._begun.popleft())
        while self._next < len(self._ranges) and self._room():
            next_ = self._ranges[self._next]
            held().fetch_whole(*_object(next_))
            self._begun.append(next_)
            self._next += 1

    def _room(self) -> bool:
        waiting = sum(r.size for r in list(self._begun)[1:])
        return len(self._begun) <= 1 or (len(self._begun) <= _RANGES_AHEAD and waiting < _BYTES_AHEAD)

    def _release(self, range_: FileRange) -> None:
        held().release(*_object(range_))

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._begun:
            self._release(self._begun.popleft())


def _is_whole(range_: FileRange) -> bool:
    """Return whether a range belongs to a small object of a known version."""
    return is_object(range_.path) and range_.version is not None and 0 < range_.size <= WHOLE_BYTES


def _object(range_: FileRange) -> tuple[str, str]:
    """Return path and version of the object of a range for which `_is_whole` is true."""
    assert range_.version is not None
    return range_.path, range_.version


class Held:
    """The cache; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: collections.OrderedDict[tuple[str, str, int], bytes] = collections.OrderedDict()
        self._wholes: dict[tuple[str, str], tuple[Future[bytes], int]] = {}

    def of(self, path: str, version: str, start: int, end: int) -> bytes:
        """Return the first, or last, bytes of an object."""
        key = (path, version, start)
        with self._lock:
            if key in self._ends:
                self._ends.move_to_end(key)
                return self._ends[key]
        data = fetch(path, version, start, end)
        with self._lock:
            self._ends[key] = data
            while len(self._ends) > _ENDS_HELD:
                self._ends.popitem(last=False)
        return data

    def whole(self, path: str, version: str) -> Future[bytes] | None:
        """Return the future of a whole object, or None if `fetch_whole` was not called for it."""
        held = self._wholes.get((path, version))
        return None if held is None else held[0]

    def fetch_whole(self, path: str, version: str) -> None:
        """Start to fetch a whole object. It is kept until each caller has released it."""
        key = (path, version)
        with self._lock:
            found = self._wholes.get(key)
            future = submit(fetch, path, version, 0, of_object(version)[0]) if found is None else found[0]
            self._wholes[key] = (future, 1 if found is None else found[1] + 1)

    def release(self, path: str, version: str) -> None:
        key = (path, version)
        with self._lock:
            future, users = self._wholes.pop(key)
            if users > 1:
                self._wholes[key] = (future, users - 1)
            else:
                future.cancel()


_held = Held()


def held() -> Held:
    """Return the cache of this process."""
    return _held


def _begin_anew() -> None:
    """Reset the cache after a fork: the pending requests belong to the parent."""
    global _held
    _held = Held()


os.register_at_fork(after_in_child=_begin_anew)
