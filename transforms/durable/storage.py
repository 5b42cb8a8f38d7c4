"""The few file system operations that the protocol of plan, parts, receipts and verdict depends on.

The docstring of each states what it guarantees. Files are written whole, under unique names; every decision is a
single file that is created if absent, or swapped for known content. `transforms.durable.on_disk` implements them on
a local disk, `transforms.durable.on_objects` over the objects of a store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

from beam_score.transforms.common.many import Item, Result
from beam_score.transforms.durable import on_disk, on_objects
from beam_score.transforms.stores.objects import ObjectPath, is_object

Place = Path | ObjectPath
"""Path of a protocol file."""


def at(text: str) -> Place:
    """Return the path of a text: `gs://...` and `s3://...` are objects, everything else is local. Raises
    transforms.stores.objects.NoSuchPlace for a text that is neither."""
    return ObjectPath.parse(text) if is_object(text) else Path(text)


def _where(path: Place) -> ModuleType:
    return on_objects if isinstance(path, ObjectPath) else on_disk


def make_folder(path: Place) -> None:
    """Create a folder and its missing parents, and make its name durable even if it exists. Only a launch calls
    this."""
    _where(path).make_folder(path)


def sync_folder(path: Place) -> None:
    """Make the names in a folder durable."""
    _where(path).sync_folder(path)


def exists(path: Place) -> bool:
    """Return whether a file or folder exists."""
    return _where(path).exists(path)


def size(path: Place) -> int | None:
    """Return the size of a file in bytes; None if it does not exist."""
    return _where(path).size(path)


def sizes(folder: Place) -> Callable[[str], int | None]:
    """Return a function from the name of a file directly in a folder to its `size`. In a store, where each call would
    be a request, all sizes are listed in advance."""
    return _where(folder).sizes(folder)


def has_folders(path: Place) -> bool:
    """Return whether the storage has folders, so that writes in a removed folder fail."""
    return _where(path).has_folders(path)


def is_folder(path: Place) -> bool:
    """Return whether a path is a folder."""
    return _where(path).is_folder(path)


def size_below(path: Place) -> int:
    """Return the bytes of a file, or of all files in and below a folder."""
    return _where(path).size_below(path)


def version(path: Place) -> Hashable | None:
    """Return a value that changes when a file is replaced or its content changes; None if it does not exist."""
    return _where(path).version(path)


def read_stamped(path: Place) -> tuple[bytes, float]:
    """Return the content of a file and its time of modification: seconds since the epoch, by the clock of the storage.
    Raises FileNotFoundError."""
    return _where(path).read_stamped(path)


def read(path: Place) -> bytes | None:
    """Return the content of a file; None if it does not exist."""
    return _where(path).read(path)


def names(path: Place) -> list[str]:
    """Return the names in a folder, sorted; empty if it does not exist."""
    return _where(path).names(path)


def write_new(path: Place, *pieces: bytes | memoryview) -> None:
    """Write a file under a unique name, and make its content durable.

    Raises:
      FileNotFoundError: the folder is gone: the run was cleaned up, and a zombie must not revive it.
    """
    _where(path).write_new(path, *pieces)


def create_if_absent(path: Place, content: bytes, scratch: Place | None = None) -> bool:
    """Create a file with its content atomically; of concurrent callers, one succeeds.

    Args:
      scratch: the folder to write it in first, on the same file system; by default its own.

    Returns:
      whether this call created it. On return the file is durable in either case.

    Raises:
      FileNotFoundError: a folder is gone.
    """
    return _where(path).create_if_absent(path, content, scratch)


def replace(path: Place, content: bytes, scratch: Place | None = None) -> None:
    """Create or replace a file atomically."""
    _where(path).replace(path, content, scratch)


def swap(path: Place, known: bytes | None, content: bytes | None, scratch: Place | None = None) -> bool:
    """Replace the content of a file if it still is the known one; None means no file.

    Of concurrent callers with the same known content, one succeeds; on return the change is durable.

    Args:
      scratch: see `create_if_absent`.

    Returns:
      whether this call did it.
    """
    return _where(path).swap(path, known, content, scratch)


def publish(names: Sequence[tuple[Place, Place]]) -> None:
    """Give files a second, final name. Idempotent, also across processes.

    Args:
      names: (file, final name) of each: the files in one folder, the final names in another.

    Raises:
      FileNotFoundError: a file or the final names' folder is gone.
    """
    if names:
        _where(names[0][0]).publish(names)


def remove(path: Place) -> None:
    """Remove a file if it exists."""
    _where(path).remove(path)


def remove_all(paths: Sequence[Place]) -> None:
    """Remove the existing ones of some files, all of one file system or bucket."""
    if paths:
        _where(paths[0]).remove_all(paths)


def remove_folder(path: Place, is_ours: Callable[[str], bool]) -> None:
    """Remove a folder, if it exists, with the project's files in it and in folders directly in it. Safe to call
    concurrently.

    It is renamed first, so that nobody sees a part of it. If it contains other files it remains, under its temporary
    name.

    Args:
      is_ours: whether a path relative to the folder, such as `parts/NAME`, is one of the project's files.
    """
    _where(path).remove_folder(path, is_ours)


def remove_temporaries(path: Place, is_ours: Callable[[str], bool], is_ours_below: Callable[[str], bool]) -> None:
    """Remove partly written files and partly removed folders that dead processes have left in a folder.

    Args:
      is_ours: whether the final name of a temporary file, or the former name of a folder, is one of the project's.
      is_ours_below: the `is_ours` of `remove_folder`, for a folder that was being removed.
    """
    _where(path).remove_temporaries(path, is_ours, is_ours_below)


def is_link(path: Place) -> bool:
    """Return whether a path is a symbolic link."""
    return _where(path).is_link(path)


def remove_if_empty(path: Place) -> None:
    """Remove a folder if it exists and is empty."""
    _where(path).remove_if_empty(path)


def lease(path: Place) -> contextlib.AbstractContextManager[None]:
    """Hold a lease on a file, a shared lock, while the body runs: it shows `exclusive` that this process is at work on
    its run. The lease ends however the process ends. Waits while another process is `exclusive`."""
    return _where(path).lease(path)


def exclusive(path: Place) -> contextlib.AbstractContextManager[bool]:
    """Yield whether no process has a lease on the file; if so, no process can take one while the body runs."""
    return _where(path).exclusive(path)


def is_leased(path: Place) -> bool:
    """Return whether a process has a lease on the file; changes nothing. False without the file, or without locks.

    Raises:
      OSError: it cannot be determined.
    """
    return _where(path).is_leased(path)


def still_exclusive(path: Place) -> bool:
    """Return, inside `exclusive`, whether still no other process has a lease on the file."""
    return _where(path).still_exclusive(path)


def each(folder: Place, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function on many items, with the concurrency that suits the folder's storage; return the results, in
    order."""
    return _where(folder).each(function, items)
