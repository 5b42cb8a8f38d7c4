"""The system calls that the protocol makes on a local disk, one object so that all of them can be seen,
counted, and made to fail."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from beam_score.transforms.common import many

_PIECE = 1 << 20


class Disk:
    """A local file system, a system call a method. Each raises OSError as the call does."""

    at_once = 16
    """How many calls `each` makes at once."""

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o644)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def read(self, descriptor: int) -> bytes:
        """Up to 1 MiB; empty at the end."""
        return os.read(descriptor, _PIECE)

    def write(self, descriptor: int, content: memoryview) -> int:
        """Returns how many bytes were written, which may be fewer than given."""
        return os.write(descriptor, content)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def inode(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_ino

    def lock(self, descriptor: int, how: int) -> None:
        """Takes an advisory lock on an open file. The kernel lets go of it when its holder dies."""
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

    def each(self, function: Callable, items: Iterable) -> list:
        """Calls a function on many items, several at once; their results, in order."""
        return many.each(function, items, self.at_once)


DISK = Disk()


def use(disk: Disk) -> None:
    """Makes another object stand for the disk, in this process."""
    global DISK
    DISK = disk


def disk() -> Disk:
    """What stands for the disk."""
    return DISK
