"""`transforms.durable.storage` on a local file system: each function implements the one of the same name there.

The requirements on a file system are in docs/guarantees.md; the system calls are those of `transforms.durable.disk`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path

from beam_score.transforms.common.many import Item, Result
from beam_score.transforms.durable.disk import disk

TEMPORARY = ".tmp"
"""The suffix of files that are being written, and of folders that are being removed; their names begin with a dot."""

_NOT_HELD = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""Lock errors of a file that does not exist, may not be opened, or is on a file system without locks."""

_LARGE = 1 << 20
"""Bytes of a file from which it is dropped from the page cache once it is on the disk. The next file then takes the
same pages. With new ones the copy takes up to ten times as long where a hypervisor provides memory at the first use
(docs/benchmarks.md)."""

_LOOKS = 3
_LOOK_AGAIN_S = 0.002


def make_folder(path: Path) -> None:
    if not exists(path.parent):
        make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        disk().mkdir(path)
    with contextlib.suppress(PermissionError):  # a folder that may be traversed, but not listed
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        disk().fsync(descriptor)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    with _named(path):
        descriptor = disk().open(path, flags)
        try:
            yield descriptor
        finally:
            disk().close(descriptor)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the path to errors on an open file, as the system's errors lack it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def exists(path: Path) -> bool:
    return size(path) is not None


def size(path: Path) -> int | None:
    try:
        return disk().stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def has_folders(path: Path) -> bool:
    return True


def is_folder(path: Path) -> bool:
    return path.is_dir()


def is_link(path: Path) -> bool:
    return path.is_symlink()


def sizes(folder: Path) -> Callable[[str], int | None]:
    return lambda name: size(folder / name)


def size_below(path: Path) -> int:
    if not path.is_dir():
        return size(path) or 0
    return sum(size(Path(folder, name)) or 0 for folder, _, files in os.walk(path) for name in files)


def version(path: Path) -> Hashable | None:
    try:
        stat = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def read_stamped(path: Path) -> tuple[bytes, float]:
    with open(path, "rb") as file:
        return file.read(), os.fstat(file.fileno()).st_mtime


def read(path: Path) -> bytes | None:
    try:
        with _opened(path, os.O_RDONLY) as descriptor:
            return _content(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _content(descriptor: int) -> bytes:
    return b"".join(iter(lambda: disk().read(descriptor), b""))


def names(path: Path) -> list[str]:
    try:
        return sorted(disk().names(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def write_new(path: Path, *pieces: bytes | memoryview) -> None:
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
        try:
            size = 0
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    written = disk().write(descriptor, left)
                    left, size = left[written:], size + written
            disk().fsync(descriptor)
            if size >= _LARGE:
                with contextlib.suppress(OSError):  # it is only advice
                    disk().drop_cached(descriptor)
        except OSError:
            # A partial file is useless, and takes space on a full disk.
            with contextlib.suppress(OSError):
                disk().unlink(path)
            raise


def create_if_absent(path: Path, content: bytes, scratch: Path | None = None) -> bool:
    with _written(path, content, scratch) as temporary:
        try:
            disk().link(temporary, path)
            created = True
        except FileExistsError:
            created = False
    sync_folder(path.parent)
    return created


def replace(path: Path, content: bytes, scratch: Path | None = None) -> None:
    with _written(path, content, scratch) as temporary:
        disk().rename(temporary, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def _written(path: Path, content: bytes, scratch: Path | None) -> Iterator[Path]:
    """Write content to a file under a temporary name, which is removed in the end."""
    temporary = _temporary(path, scratch)
    write_new(temporary, content)
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            disk().unlink(temporary)


def _temporary(path: Path, folder: Path | None = None) -> Path:
    return (folder or path.parent) / f".{path.name}.{secrets.token_hex(6)}{TEMPORARY}"


def swap(path: Path, known: bytes | None, content: bytes | None, scratch: Path | None = None) -> bool:
    if known is None:
        return create_if_absent(path, content, scratch) if content is not None else not exists(path)
    with _locked(path) as found:
        if found != known:
            return False
        if content is None:
            disk().unlink(path)
            sync_folder(path.parent)
        else:
            replace(path, content, scratch)
        return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bytes | None]:
    """Lock a file against other swaps and yield its content; None if it does not exist.

    The lock is on the file that is swapped out, not on its name, so the name is checked again after a wait.
    """
    while True:
        try:
            descriptor = disk().open(path, os.O_RDWR)
        except FileNotFoundError:
            yield None
            return
        try:
            with _named(path):
                disk().lock(descriptor, fcntl.LOCK_EX)
                found = _content(descriptor) if _inode(path) == disk().inode(descriptor) else None
            if found is not None:
                yield found
                return
        finally:
            _close(descriptor, path)


def _close(descriptor: int, path: Path) -> None:
    with _named(path):
        disk().close(descriptor)


def _inode(path: Path) -> int | None:
    try:
        return disk().stat(path).st_ino
    except FileNotFoundError:
        return None


def publish(names: Sequence[tuple[Path, Path]]) -> None:
    disk().each(lambda name: _publish(*name), names)


def _publish(source: Path, target: Path) -> None:
    try:
        disk().link(source, target)
    except FileExistsError:
        if _inode(target) == disk().stat(source).st_ino:
            return
        # A leftover of a verdict that was damaged later: no manifest lists it yet.
        temporary = _temporary(source)
        disk().link(source, temporary)
        disk().rename(temporary, target)


def remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        disk().unlink(path)


def remove_all(paths: Sequence[Path]) -> None:
    disk().each(remove, paths)


def remove_folder(path: Path, is_ours: Callable[[str], bool]) -> None:
    doomed = _temporary(path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if path.is_dir() and not path.is_symlink():
            disk().rename(path, doomed)
            _remove_ours(doomed, is_ours)


def remove_temporaries(path: Path, is_ours: Callable[[str], bool], is_ours_below: Callable[[str], bool]) -> None:
    for name in names(path):
        to_be = temporary_of(name)
        if to_be is not None and is_ours(to_be):
            if is_link(path / name) or not is_folder(path / name):
                remove(path / name)
            else:
                _remove_ours(path / name, is_ours_below)


def _remove_ours(path: Path, is_ours: Callable[[str], bool], within: str = "") -> None:
    """Remove the project's files in a folder and in its folders, and the folders that are then empty."""

    def remove_one(name: str) -> None:
        inner = path / name
        if not within and is_folder(inner) and not is_link(inner):
            _remove_ours(inner, is_ours, f"{name}/")
        elif is_ours(within + name):
            with contextlib.suppress(IsADirectoryError, PermissionError):  # a folder with a name of our files
                remove(inner)

    disk().each(remove_one, names(path))
    remove_if_empty(path)


def remove_if_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        disk().rmdir(path)


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    return disk().each(function, items)


@contextlib.contextmanager
def lease(path: Path) -> Iterator[None]:
    descriptor = disk().open(path, os.O_RDONLY)
    try:
        with _named(path):
            disk().lock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        _close(descriptor, path)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    try:
        descriptor = disk().open(path, os.O_RDWR)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            with _named(path):
                disk().lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        _close(descriptor, path)


def is_leased(path: Path) -> bool:
    for _ in range(_LOOKS):
        try:
            with _opened(path, os.O_RDONLY) as descriptor:
                disk().lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
        except BlockingIOError:
            time.sleep(_LOOK_AGAIN_S)  # it may be another process that checks
        except OSError as error:
            if error.errno in _NOT_HELD:
                return False
            raise  # unknown: files of a live process could be removed
    return True


def still_exclusive(path: Path) -> bool:
    return True


_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp")
"""Name of a file that is being written, or of a folder that is being removed; the group is its final or former name."""


def temporary_of(name: str) -> str | None:
    """Return the final name of a temporary file, or the former name of a folder that is being removed; else None."""
    found = _TEMPORARY.fullmatch(name)
    return None if found is None else found[1]
