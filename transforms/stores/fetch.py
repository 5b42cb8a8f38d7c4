"""Bytes of one version of an object, or a sentence that says why not; and threads that fetch what will be wanted."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from beam_score.transforms.stores.objects import ObjectPath, VersionMismatch
from beam_score.transforms.stores.registry import store_of
from beam_score.transforms.stores.versions import check_unchanged, of_object

THREAD = "object-reads"
"""How the threads that fetch are called."""

_AT_ONCE = 32


class StoreFails(RuntimeError):
    """A store did not give an object that it has, tried again for a while. No fault of the file: no row is refused
    for it, and the same command goes on. The text is a sentence with the object's name."""


def fetch(path: str, version: str, start: int, end: int) -> bytes:
    """Bytes of an object at a version, all of them.

    Raises:
      InputChanged: it is not at that version any more.
      StoreFails: the store does not give them.
    """
    where, (size, object_version) = ObjectPath.parse(path), of_object(version)
    try:
        # All of it is asked for as that: the store client then compares its checksum.
        until = None if start == 0 and end == size else end
        data = ask_store(path, lambda: store_of(where).read(where, start, until, object_version))
    except (VersionMismatch, FileNotFoundError) as error:
        ask_store(path, lambda: check_unchanged(path, version))
        raise StoreFails(f"{path}: {error.strerror}: it was taken away or replaced, and put back") from error
    except PermissionError as error:
        raise StoreFails(f"{path}: {error.strerror}") from error
    if len(data) != end - start:
        raise StoreFails(f"{path}: the store gave {len(data):,} of the bytes {start:,} to {end:,}, of {size:,}")
    return data


def ask_store(path: str, call: Callable[[], Any]) -> Any:
    """What a store answers.

    Args:
      path: that is asked for.
      call: asks.

    Raises:
      StoreFails: it does not answer.
      VersionMismatch, FileNotFoundError, PermissionError: what it answers.
    """
    try:
        return call()
    except (VersionMismatch, FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise StoreFails(f"{error.filename or path}: {error.strerror or type(error).__name__}") from error


def submit(call: Callable, *arguments: Any) -> Future:
    """Has something fetched by a thread."""
    return _pool().submit(call, *arguments)


def _pool() -> ThreadPoolExecutor:
    global _threads
    with _making:
        if _threads is None:
            _threads = ThreadPoolExecutor(_AT_ONCE, THREAD)
        return _threads


def _begin_anew() -> None:
    """After a fork: the threads are the parent's."""
    global _threads, _making
    _threads, _making = None, threading.Lock()


_begin_anew()
os.register_at_fork(after_in_child=_begin_anew)
