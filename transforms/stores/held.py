"""What is held of objects in memory, for all who open them in this process: the ends of many, since each range of a
file is read with its header or footer; and all of the small ones that are read now, or will be next."""

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
"""An object of at most this size is fetched in one request once its rows are read."""

_RANGES_AHEAD, _BYTES_AHEAD = 16, 16 << 20
"""Of the small objects of a split: so many, with so many bytes, are on their way beside the one that is read."""

_ENDS_HELD = 1024


class Ahead:
    """The small objects of some ranges, each fetched whole by one request, before its turn; a context manager."""

    def __init__(self, ranges: Sequence[FileRange]):
        self._ranges = [r for r in ranges if _is_whole(r)]
        self._begun: collections.deque[FileRange] = collections.deque()
        self._next = 0

    def turn_of(self, range_: FileRange) -> None:
        """A range is read now: has it, and some of those after it, on their way; those before it are let go of."""
        if not _is_whole(range_):
            return
        while self._begun and self._begun[0] is not range_:
            self._release(self._begun.popleft())
        while self._next < len(self._ranges) and self._room():
            next_ = self._ranges[self._next]
            held().fetch_whole(next_.path, next_.version)
            self._begun.append(next_)
            self._next += 1

    def _room(self) -> bool:
        waiting = sum(r.size for r in list(self._begun)[1:])
        return len(self._begun) <= 1 or (len(self._begun) <= _RANGES_AHEAD and waiting < _BYTES_AHEAD)

    def _release(self, range_: FileRange) -> None:
        held().release(range_.path, range_.version)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *exc) -> None:
        while self._begun:
            self._release(self._begun.popleft())


def _is_whole(range_: FileRange) -> bool:
    """Whether a range is of a small object, at the version that it means."""
    return is_object(range_.path) and range_.version is not None and 0 < range_.size <= WHOLE_BYTES


class Held:
    """Safe to use from many threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._ends: collections.OrderedDict[tuple[str, str, int], bytes] = collections.OrderedDict()
        self._wholes: dict[tuple[str, str], tuple[Future[bytes], int]] = {}

    def of(self, path: str, version: str, start: int, end: int) -> bytes:
        """The first, or last, bytes of an object."""
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
        """All of an object, where it was asked for."""
        held = self._wholes.get((path, version))
        return None if held is None else held[0]

    def fetch_whole(self, path: str, version: str) -> None:
        """Has all of an object fetched; held until each who asked for it has released it."""
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


def held() -> Held:
    """What this process holds."""
    return _held


def _begin_anew() -> None:
    """After a fork: what was to be fetched is the parent's."""
    global _held
    _held = Held()


_begin_anew()
os.register_at_fork(after_in_child=_begin_anew)
