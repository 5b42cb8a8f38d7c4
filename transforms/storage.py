"""The few file-system operations that the protocol of plan, parts, receipts and verdict rests on.

What each guarantees is in its docstring. Files are written whole under a name of their own; what decides something is
one file that is created if absent, or swapped for a known content. Here is how a local disk does it; given an
`ObjectPath`, each does the same over the objects of a store, as `transforms.object_storage` has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import secrets
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path

from transforms import object_storage
from transforms.disk import disk
from transforms.objects import ObjectPath, is_object

TEMPORARY = ".tmp"
"""The suffix of files that are being written, and of folders that are being removed; their names begin with a dot."""

_LOOKS = 3
_LOOK_AGAIN_S = 0.002

Place = Path | ObjectPath
"""Where a file of the protocol is."""


def at(text: str) -> Place:
    """Where a text says: `gs://...` and `s3://...` are objects, all else is local. Raises
    transforms.objects.NoSuchPlace for a text that is neither."""
    return ObjectPath.parse(text) if is_object(text) else Path(text)


@functools.singledispatch
def make_folder(path: Path) -> None:
    """Makes a folder, and parents that are missing, and makes its name durable, whoever made it. Only a launch
    calls this."""
    if not exists(path.parent):
        make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        disk().mkdir(path)
    with contextlib.suppress(PermissionError):  # a folder that may be passed through, and not listed
        sync_folder(path.parent)


@functools.singledispatch
def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
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
    """Gives the path to what is raised on an open file: the system says only that something is wrong."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@functools.singledispatch
def exists(path: Path) -> bool:
    """Whether there is a file or folder of that name."""
    return size(path) is not None


@functools.singledispatch
def size(path: Path) -> int | None:
    """The size of a file in bytes; None where there is none."""
    try:
        return disk().stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


@functools.singledispatch
def has_folders(path: Path) -> bool:
    """Whether there are folders, so that who writes in one that is gone fails."""
    return True


@functools.singledispatch
def is_folder(path: Path) -> bool:
    """Whether there is a folder of that name."""
    return path.is_dir()


@functools.singledispatch
def size_below(path: Path) -> int:
    """The bytes of a file, or of all files in a folder and below."""
    if not path.is_dir():
        return size(path) or 0
    return sum(size(Path(folder, name)) or 0 for folder, _, files in os.walk(path) for name in files)


@functools.singledispatch
def version(path: Path) -> Hashable | None:
    """What is another once a file is another, or has another content; None where there is none."""
    try:
        stat = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


@functools.singledispatch
def read_stamped(path: Path) -> tuple[bytes, float]:
    """The content of a file, and when it was written: seconds since the epoch, by the clock of where it is. Raises
    FileNotFoundError."""
    with open(path, "rb") as file:
        return file.read(), os.fstat(file.fileno()).st_mtime


@functools.singledispatch
def read(path: Path) -> bytes | None:
    """The content of a file; None where there is none."""
    try:
        with _opened(path, os.O_RDONLY) as descriptor:
            return _content(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _content(descriptor: int) -> bytes:
    return b"".join(iter(lambda: disk().read(descriptor), b""))


@functools.singledispatch
def names(path: Path) -> list[str]:
    """The names in a folder, sorted; none where there is no folder."""
    try:
        return sorted(disk().names(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


@functools.singledispatch
def write_new(path: Path, *pieces: bytes | memoryview) -> None:
    """Writes a file under a name that nobody else uses, and makes its content durable.

    Raises:
      FileNotFoundError: the folder is gone: the run was cleaned up, and a zombie must not revive it.
    """
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
        try:
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    left = left[disk().write(descriptor, left) :]
            disk().fsync(descriptor)
        except OSError:
            # A part of a file is no use to anyone, and on a full disk it is in the way.
            with contextlib.suppress(OSError):
                disk().unlink(path)
            raise


@functools.singledispatch
def create_if_absent(path: Path, content: bytes, scratch: Path | None = None) -> bool:
    """Creates a file with its whole content, or nothing; of many callers at once, one succeeds.

    Args:
      scratch: the folder that it is written in first, on the same file system; else its own.

    Returns:
      whether this call created it. On return the file is durable, whoever created it.

    Raises:
      FileNotFoundError: a folder is gone.
    """
    with _written(path, content, scratch) as temporary:
        try:
            disk().link(temporary, path)
            created = True
        except FileExistsError:
            created = False
    sync_folder(path.parent)
    return created


@functools.singledispatch
def replace(path: Path, content: bytes, scratch: Path | None = None) -> None:
    """Creates a file with its whole content, in place of one that may be there, in one step."""
    with _written(path, content, scratch) as temporary:
        disk().rename(temporary, path)
    sync_folder(path.parent)


@contextlib.contextmanager
def _written(path: Path, content: bytes, scratch: Path | None) -> Iterator[Path]:
    """Content in a file under a temporary name, which is gone in the end."""
    temporary = _temporary(path, scratch)
    write_new(temporary, content)
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            disk().unlink(temporary)


def _temporary(path: Path, folder: Path | None = None) -> Path:
    return (folder or path.parent) / f".{path.name}.{secrets.token_hex(6)}{TEMPORARY}"


@functools.singledispatch
def swap(path: Path, known: bytes | None, content: bytes | None, scratch: Path | None = None) -> bool:
    """Puts a content in a file's place if it still holds the one known; None stands for no file.

    Of many callers who know the same, one succeeds; on return it is durable.

    Args:
      scratch: see `create_if_absent`.

    Returns:
      whether this call did it.
    """
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
    """The content of a file that nobody else may swap meanwhile; None where there is none.

    The lock is on the file that is swapped out, not on its name: who waited for it looks again.
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


@functools.singledispatch
def publish(source: Path, target: Path) -> None:
    """Gives a file a second, final name. Done again, also by another process, it changes nothing.

    Raises:
      FileNotFoundError: the file or the final name's folder is gone.
    """
    try:
        disk().link(source, target)
    except FileExistsError:
        if _inode(target) == disk().stat(source).st_ino:
            return
        # Left by a verdict that was damaged later: no manifest lists it yet.
        temporary = _temporary(source)
        disk().link(source, temporary)
        disk().rename(temporary, target)


@functools.singledispatch
def remove(path: Path) -> None:
    """Removes a file, if it is there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        disk().unlink(path)


@functools.singledispatch
def remove_folder(path: Path) -> None:
    """Removes a folder with all that is in it, if it is there; others may do so at once.

    It goes from its name in one step first: nobody sees a half of it.
    """
    doomed = _temporary(path)
    with contextlib.suppress(FileNotFoundError):
        disk().rename(path, doomed)
        _remove_tree(doomed)


@functools.singledispatch
def remove_temporaries(path: Path) -> None:
    """Removes what those who died have left in a folder half written, or half removed."""
    for name in names(path):
        if name.startswith(".") and name.endswith(TEMPORARY):
            _remove_tree(path / name)


def _remove_tree(path: Path) -> None:
    try:
        remove(path)
    except (IsADirectoryError, PermissionError):
        each(_remove_tree, [path / name for name in names(path)])
        remove_if_empty(path)


@functools.singledispatch
def remove_if_empty(path: Path) -> None:
    """Removes a folder if it is there and empty."""
    with contextlib.suppress(OSError):
        disk().rmdir(path)


@functools.singledispatch
@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Shows to `alone`, as long as the body runs, that this process is at work on what the file stands
    for; however the process ends. Several may hold at once; waits for one that is alone."""
    descriptor = disk().open(path, os.O_RDONLY)
    try:
        with _named(path):
            disk().lock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        _close(descriptor, path)


@functools.singledispatch
@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether nobody holds the file; if so, nobody can while the body runs."""
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


@functools.singledispatch
def is_held(path: Path) -> bool:
    """Whether somebody holds the file; changes nothing. False where there is none, and where nobody can tell."""
    for _ in range(_LOOKS):
        try:
            with _opened(path, os.O_RDONLY) as descriptor:
                disk().lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
        except BlockingIOError:
            time.sleep(_LOOK_AGAIN_S)  # it may be another who looks
        except OSError:
            return False
    return True


@functools.singledispatch
def still_alone(path: Path) -> bool:
    """Inside `alone`: whether nobody has come meanwhile."""
    return True


def each(function: Callable, items: Iterable) -> list:
    """Calls a function on many items, several at once; their results, in order."""
    return disk().each(function, items)


for _function in (
    make_folder,
    sync_folder,
    exists,
    size,
    has_folders,
    is_folder,
    size_below,
    version,
    read,
    read_stamped,
    names,
    write_new,
    create_if_absent,
    replace,
    swap,
    publish,
    remove,
    remove_folder,
    remove_temporaries,
    remove_if_empty,
    hold,
    alone,
    still_alone,
    is_held,
):
    _function.register(ObjectPath, getattr(object_storage, _function.__name__))
