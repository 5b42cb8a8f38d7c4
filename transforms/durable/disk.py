"""The system calls that the protocol makes on a local disk, in one object so that tests can observe and count them,
and make them fail."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from beam_score.transforms.common import many
from beam_score.transforms.common.many import Item, Result

_PIECE = 1 << 20


class Disk:
    """A local file system, with one method per system call. Each raises the OSError of the call."""

    at_once = 16
    """Number of concurrent calls of `each`."""

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o644)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def read(self, descriptor: int) -> bytes:
        """Return up to 1 MiB; empty at the end."""
        return os.read(descriptor, _PIECE)

    def write(self, descriptor: int, content: memoryview) -> int:
        """Return the number of bytes written, which may be fewer than given."""
        return os.write(descriptor, content)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def drop_cached(self, descriptor: int) -> None:
        """Drop the pages of an open file from the page cache; those that are not on the disk yet remain."""
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def inode(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_ino

    def lock(self, descriptor: int, how: int) -> None:
        """Take an advisory lock on an open file. The kernel releases it when the process dies."""
        fcntl.flock(descriptor, how)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def names(self, path: Path) -> list[str]:
        return os.listdir(path)

    def stat(self, path: Path) -> os.stat_result:
        return os.stat(path)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Call a function on many items, several at once; return the results, in order."""
        return many.parallel_map(function, items, self.at_once)


DISK = Disk()


def use(disk: Disk) -> None:
    """Replace the object that makes the system calls in this process."""
    global DISK
    DISK = disk


def disk() -> Disk:
    """Return the object that makes the system calls."""
    return DISK
