"""The few file-system operations that the protocol of plan, parts, receipts and verdict rests on.

What each guarantees is in its docstring. Files are written whole under a name of their own; what decides something is
one file that is created if absent, or swapped for a known content. How a local disk does it is in
`transforms.durable.on_disk`; how it is done over the objects of a store, in `transforms.durable.on_objects`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

from beam_score.transforms.durable import on_disk as local_storage
from beam_score.transforms.durable import on_objects as object_storage
from beam_score.transforms.stores.objects import ObjectPath, is_object

TEMPORARY = local_storage.TEMPORARY
"""The suffix of files that are being written, and of folders that are being removed; their names begin with a dot."""

Place = Path | ObjectPath
"""Where a file of the protocol is."""


def at(text: str) -> Place:
    """Where a text says: `gs://...` and `s3://...` are objects, all else is local. Raises
    transforms.stores.objects.NoSuchPlace for a text that is neither."""
    return ObjectPath.parse(text) if is_object(text) else Path(text)


def _where(path: Place) -> ModuleType:
    return object_storage if isinstance(path, ObjectPath) else local_storage


def make_folder(path: Place) -> None:
    """Makes a folder, and parents that are missing, and makes its name durable, whoever made it. Only a launch
    calls this."""
    _where(path).make_folder(path)


def sync_folder(path: Place) -> None:
    """Makes the names in a folder durable."""
    _where(path).sync_folder(path)


def exists(path: Place) -> bool:
    """Whether there is a file or folder of that name."""
    return _where(path).exists(path)


def size(path: Place) -> int | None:
    """The size of a file in bytes; None where there is none."""
    return _where(path).size(path)


def sizes(folder: Place) -> Callable[[str], int | None]:
    """Gives what `size` says of the files right in a folder, by name; or what it said just now, of all at once, where
    a look at each would be a request."""
    return _where(folder).sizes(folder)


def has_folders(path: Place) -> bool:
    """Whether there are folders, so that who writes in one that is gone fails."""
    return _where(path).has_folders(path)


def is_folder(path: Place) -> bool:
    """Whether there is a folder of that name."""
    return _where(path).is_folder(path)


def size_below(path: Place) -> int:
    """The bytes of a file, or of all files in a folder and below."""
    return _where(path).size_below(path)


def version(path: Place) -> Hashable | None:
    """What is another once a file is another, or has another content; None where there is none."""
    return _where(path).version(path)


def read_stamped(path: Place) -> tuple[bytes, float]:
    """The content of a file, and when it was written: seconds since the epoch, by the clock of where it is. Raises
    FileNotFoundError."""
    return _where(path).read_stamped(path)


def read(path: Place) -> bytes | None:
    """The content of a file; None where there is none."""
    return _where(path).read(path)


def names(path: Place) -> list[str]:
    """The names in a folder, sorted; none where there is no folder."""
    return _where(path).names(path)


def write_new(path: Place, *pieces: bytes | memoryview) -> None:
    """Writes a file under a name that nobody else uses, and makes its content durable.

    Raises:
      FileNotFoundError: the folder is gone: the run was cleaned up, and a zombie must not revive it.
    """
    _where(path).write_new(path, *pieces)


def create_if_absent(path: Place, content: bytes, scratch: Place | None = None) -> bool:
    """Creates a file with its whole content, or nothing; of many callers at once, one succeeds.

    Args:
      scratch: the folder that it is written in first, on the same file system; else its own.

    Returns:
      whether this call created it. On return the file is durable, whoever created it.

    Raises:
      FileNotFoundError: a folder is gone.
    """
    return _where(path).create_if_absent(path, content, scratch)


def replace(path: Place, content: bytes, scratch: Place | None = None) -> None:
    """Creates a file with its whole content, in place of one that may be there, in one step."""
    _where(path).replace(path, content, scratch)


def swap(path: Place, known: bytes | None, content: bytes | None, scratch: Place | None = None) -> bool:
    """Puts a content in a file's place if it still holds the one known; None stands for no file.

    Of many callers who know the same, one succeeds; on return it is durable.

    Args:
      scratch: see `create_if_absent`.

    Returns:
      whether this call did it.
    """
    return _where(path).swap(path, known, content, scratch)


def publish(names: Sequence[tuple[Place, Place]]) -> None:
    """Gives files second, final names. Done again, also by another process, it changes nothing.

    Args:
      names: (file, final name) of each: the files in one folder, the final names in another.

    Raises:
      FileNotFoundError: a file or the final names' folder is gone.
    """
    if names:
        _where(names[0][0]).publish(names)


def remove(path: Place) -> None:
    """Removes a file, if it is there."""
    _where(path).remove(path)


def remove_all(paths: Sequence[Place]) -> None:
    """Removes files of one file system or bucket, those that are there."""
    if paths:
        _where(paths[0]).remove_all(paths)


def remove_folder(path: Place, is_ours: Callable[[str], bool]) -> None:
    """Removes a folder with the files in it, and in folders right in it, that are ours, if it is there; others may do
    so at once.

    It goes from its name in one step first: nobody sees a half of it. With files that are not ours it stays, under
    the name of a temporary.

    Args:
      is_ours: told a path relative to the folder, as `parts/NAME`.
    """
    _where(path).remove_folder(path, is_ours)


def remove_temporaries(path: Place, is_ours: Callable[[str], bool], is_ours_below: Callable[[str], bool]) -> None:
    """Removes what those who died have left in a folder half written, or half removed.

    Args:
      is_ours: told the name that a temporary was to get, or that a folder had.
      is_ours_below: of a folder that was being removed, as of `remove_folder`.
    """
    _where(path).remove_temporaries(path, is_ours, is_ours_below)


def is_link(path: Place) -> bool:
    """Whether a name stands for a file or folder elsewhere."""
    return _where(path).is_link(path)


def remove_if_empty(path: Place) -> None:
    """Removes a folder if it is there and empty."""
    _where(path).remove_if_empty(path)


def hold(path: Place) -> contextlib.AbstractContextManager[None]:
    """Shows to `alone`, as long as the body runs, that this process is at work on what the file stands
    for; however the process ends. Several may hold at once; waits for one that is alone."""
    return _where(path).hold(path)


def alone(path: Place) -> contextlib.AbstractContextManager[bool]:
    """Whether nobody holds the file; if so, nobody can while the body runs."""
    return _where(path).alone(path)


def is_held(path: Place) -> bool:
    """Whether somebody holds the file; changes nothing. False where there is none, or there are no locks.

    Raises:
      OSError: nobody knows.
    """
    return _where(path).is_held(path)


def still_alone(path: Place) -> bool:
    """Inside `alone`: whether nobody has come meanwhile."""
    return _where(path).still_alone(path)


def each(folder: Place, function: Callable, items: Iterable) -> list:
    """Calls a function on many items, as many at once as pays where a folder is; their results, in order."""
    return _where(folder).each(function, items)
