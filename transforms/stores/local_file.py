"""Local input files. All stat calls, listings and reads go through this module, so that transient errors are retried
and never mistaken for damage to the file.

A mounted folder can fail for a moment (ESTALE, EIO, ETIMEDOUT), and so can the machine (ENOMEM, EMFILE). Only the bytes
of a file can show damage.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from beam_score.transforms.stores.byte_file import ByteFile

Result = TypeVar("Result")

WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds to wait before each retry."""

_LASTING = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "ELOOP", "ENAMETOOLONG", "EINVAL"),
        *("ENXIO", "ENODEV", "EROFS", "EOPNOTSUPP", "ENOSYS"),
    )
)


class ReadFails(RuntimeError):
    """The system failed to return a file, a folder or their contents, although the call was retried. No row and no file
    is rejected for it, and the same command continues. The text is a sentence with the path."""


class Calls:
    """The system calls on input files, in one object so that tests can make each of them fail."""

    def open(self, path: str) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read_at(self, descriptor: int, count: int, position: int) -> bytes:
        return os.pread(descriptor, count, position)

    def size(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_size

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def lstat(self, path: str) -> os.stat_result:
        return os.lstat(path)

    def list(self, folder: str) -> list[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            return list(entries)

    def real_path(self, path: str) -> str:
        return os.path.realpath(path, strict=True)


_calls = Calls()


def use(calls: Calls) -> None:
    """Replace the object that makes the system calls in this process."""
    global _calls
    _calls = calls


def calls() -> Calls:
    """Return the object that makes the system calls."""
    return _calls


def is_of_the_system(error: BaseException) -> bool:
    """Return whether an error comes from the system, rather than from a file's bytes.

    pyarrow raises OSError for damaged files too, but without an errno.
    """
    if isinstance(error, OSError):
        return error.errno is not None or error.strerror is not None
    return isinstance(error, MemoryError) and not asks_for_too_much(error)


_MOST_BYTES = 1 << 40


def asks_for_too_much(error: MemoryError) -> bool:
    """Return whether pyarrow asked for more memory in one piece than any file contains, because of a damaged length."""
    words = str(error).split()
    sizes = [int(word) for before, word in itertools.pairwise(words) if before == "size" and _is_int(word)]
    return any(size < 0 or size > _MOST_BYTES for size in sizes)


def _is_int(word: str) -> bool:
    return word.lstrip("-").isdecimal()


def may_pass(error: BaseException) -> bool:
    """Return whether the same call may succeed a moment later."""
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in _LASTING
    return is_of_the_system(error)


def retried(path: str, call: Callable[[], Result], waits_s: Sequence[float] = WAITS_S) -> Result:
    """Make a call, and retry it after transient errors.

    Args:
      path: named in errors.
      waits_s: seconds to wait before each retry.

    Raises:
      ReadFails: a transient error persists.
      OSError: a lasting error, such as a missing file.
    """
    for wait_s in waits_s:
        try:
            return call()
        except OSError as error:
            if not may_pass(error):
                raise
        time.sleep(wait_s)
    try:
        return call()
    except OSError as error:
        if not may_pass(error):
            raise
        raise fails(path, error, len(waits_s) + 1) from error


def fails(path: str, error: BaseException, tries: int) -> ReadFails:
    """Return the error to raise for a failure that persists."""
    if isinstance(error, MemoryError):
        what = "not enough memory to read it"
        remedy = "give the job more memory, or lower engine.workers or engine.block_bytes"
    else:
        number = getattr(error, "errno", None)  # pyarrow's own text repeats the path
        what = os.strerror(number) if number else getattr(error, "strerror", None) or type(error).__name__
        remedy = "check the disk or the mount"
    often = f"tried {tries} times" if tries > 1 else "a retry does not help"
    return ReadFails(
        f"{path}: {what} ({often}); no row was rejected for it: {remedy}, and the same command continues from here"
    )


def status_of(path: str) -> os.stat_result:
    """Return `os.stat` of a path, with retries. Raises ReadFails, OSError."""
    return retried(path, lambda: _calls.stat(path))


def entries_of(folder: str) -> list[os.DirEntry[str]]:
    """Return all entries of a folder, with retries. Raises ReadFails, OSError."""
    return retried(folder, lambda: _calls.list(folder))


class LocalFile(ByteFile):
    """A local file as a seekable, unbuffered stream of bytes.

    After a transient error the file is reopened, and reading continues from the same position.

    Raises:
      OSError: the file cannot be opened.
      ReadFails: a transient error persists; from every call.
    """

    _descriptor = -1  # until the file is open

    def __init__(self, path: str):
        super().__init__()
        self.name = path
        self._descriptor = retried(path, lambda: _calls.open(path))

    def read(self, count: int | None = -1) -> bytes:
        if count is None or count < 0:
            return self.readall()
        self._checkClosed()
        data = retried(self.name, lambda: self._tried(_calls.read_at, count, self._at))
        self._at += len(data)
        return data

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(1 << 20), b""))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = 0
        if whence == io.SEEK_CUR:
            start = self._at
        elif whence == io.SEEK_END:
            start = retried(self.name, lambda: self._tried(_calls.size))
        self._at = max(0, start + offset)
        return self._at

    def close(self) -> None:
        if not self.closed and self._descriptor >= 0:
            _calls.close(self._descriptor)
        super().close()

    def _tried(self, call: Callable[..., Result], *arguments: int) -> Result:
        try:
            return call(self._descriptor, *arguments)
        except OSError as error:
            if may_pass(error):  # a stale handle stays stale
                stale, self._descriptor = self._descriptor, _calls.open(self.name)
                _calls.close(stale)  # if this fails, the handle is closed nevertheless
            raise
