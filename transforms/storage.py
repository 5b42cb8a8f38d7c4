"""The few file-system operations that the protocol of plan, parts, receipts and verdict rests on.

Local disk only, so far; what each must guarantee is in its docstring, and is all that another store
has to provide.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


def make_folder(path: Path) -> None:
    """Makes a folder, its parents, and makes their names durable. Only the launcher calls this."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for last in (False, False, True):
        try:
            path.mkdir(parents=True, exist_ok=True)
            break
        except FileNotFoundError:  # another run has just removed an empty parent
            if last:
                raise
    for folder in missing:
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    with _open_folder(path) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _open_folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_new(path: Path, *parts: bytes | memoryview) -> None:
    """Writes a file under a name that nobody else uses, and makes its content durable.

    Raises:
      FileNotFoundError: the folder is gone: the run was cleaned up, and a zombie must not revive it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            for part in parts:
                file.write(part)
        os.fsync(descriptor)
    except OSError:
        # A part of a file is no use to anyone, and on a full disk it is in the way.
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def create_if_absent(path: Path, content: bytes) -> bool:
    """Creates a file with its whole content, or nothing; of many callers at once, one succeeds.

    Returns:
      whether this call created it. On return the file is durable, whoever created it.
    """
    temporary = _temporary(path)
    write_new(temporary, content)
    try:
        os.link(temporary, path)
        created = True
    except FileExistsError:
        created = False
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    sync_folder(path.parent)
    return created


def replace(path: Path, content: bytes) -> None:
    """Creates a file with its whole content, in place of one that may be there, in one step."""
    temporary = _temporary(path)
    write_new(temporary, content)
    os.replace(temporary, path)
    sync_folder(path.parent)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}")


def move(source: Path, target: Path) -> None:
    """Gives a file its final name. Done again, also by another process, it changes nothing.

    Raises:
      FileNotFoundError: neither name exists.
    """
    try:
        os.rename(source, target)
    except FileNotFoundError:
        if not target.exists():
            raise


def remove(path: Path) -> None:
    """Removes a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def remove_folder(path: Path) -> None:
    """Removes a folder with all that is in it, if it is there; others may do so at once."""
    shutil.rmtree(path, ignore_errors=True)


def remove_if_empty(path: Path) -> None:
    """Removes a folder that is there and empty."""
    with contextlib.suppress(OSError):
        path.rmdir()
