"""Reads of one version of an object, with errors as sentences, and the threads that fetch in advance."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from beam_score.transforms.stores.objects import ObjectPath, VersionMismatch
from beam_score.transforms.stores.registry import store_of
from beam_score.transforms.stores.versions import check_unchanged, of_object

Result = TypeVar("Result")

THREAD = "object-reads"
"""Name prefix of the threads that fetch."""

_AT_ONCE = 32

_threads: ThreadPoolExecutor | None = None
_making = threading.Lock()


class StoreFails(RuntimeError):
    """A store failed to return an object that it has, although the call was retried. The file is not at fault: no row
    is rejected, and the same command continues. The text is a sentence with the object's name."""


def fetch(path: str, version: str, start: int, end: int) -> bytes:
    """Return all bytes of a range of an object, at a version.

    Raises:
      InputChanged: the object is no longer at that version.
      StoreFails: the store failed.
    """
    where, (size, object_version) = ObjectPath.parse(path), of_object(version)
    try:
        # A whole object is requested without a range: the store client then compares its checksum.
        until = None if start == 0 and end == size else end
        data = ask_store(path, lambda: store_of(where).read(where, start, until, object_version))
    except (VersionMismatch, FileNotFoundError) as error:
        ask_store(path, lambda: check_unchanged(path, version))
        raise StoreFails(f"{path}: {error.strerror}: it was removed or replaced, and put back") from error
    except PermissionError as error:
        raise StoreFails(f"{path}: {error.strerror}") from error
    if len(data) != end - start:
        raise StoreFails(f"{path}: the store returned {len(data):,} of the bytes {start:,} to {end:,}, of {size:,}")
    return data


def ask_store(path: str, call: Callable[[], Result]) -> Result:
    """Return the result of a call to a store.

    Args:
      path: the object that the call is about.
      call: the call.

    Raises:
      StoreFails: the call failed for another reason than those below.
      VersionMismatch, FileNotFoundError, PermissionError: as the call raised them.
    """
    try:
        return call()
    except (VersionMismatch, FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise StoreFails(f"{error.filename or path}: {error.strerror or type(error).__name__}") from error


def submit(call: Callable[..., Result], *arguments: Any) -> Future[Result]:
    """Start a call in a thread."""
    return _pool().submit(call, *arguments)


def _pool() -> ThreadPoolExecutor:
    global _threads
    with _making:
        if _threads is None:
            _threads = ThreadPoolExecutor(_AT_ONCE, THREAD)
        return _threads


def _begin_anew() -> None:
    """Reset the module after a fork: the threads belong to the parent."""
    global _threads, _making
    _threads, _making = None, threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)
