"""Which version of an input file a plan means, and whether the file is still that version.

A local file's version is its size, time of change and inode. Its ctime is not part of it: that changes too when
a file is linked, renamed or given other permissions, which changes no byte, and nobody can put it back.

An object's version is its size and what its store calls one, a generation (GCS) or an ETag (S3). Every read asks
for it (`transforms.stores.object_file`), so what was read is of that version, and nobody need look before or after.
"""

from __future__ import annotations

import datetime

from beam_score.transforms.stores.local_file import status_of
from beam_score.transforms.stores.objects import ObjectPath, is_object
from beam_score.transforms.stores.registry import store_of

READ_IT_ANEW = "put it back as it was and run the same command, or add --restart to read it as it is now"


class InputChanged(RuntimeError):
    """An input file is not the one that the plan means. The text names it, what changed, what to do."""


def version_of(size: int, mtime_ns: int | None, inode: int | None, object_version: str | None = None) -> str:
    """The version of a file, as a plan holds it. What tells it is as `transforms.listing.files.InputFile` has it."""
    return f"{size}:{mtime_ns}:{inode}" if object_version is None else f"{size}@{object_version}"


def of_object(version: str) -> tuple[int, str]:
    """An object's size, and its version as its store calls it."""
    size, _, object_version = version.partition("@")
    return int(size), object_version


def check_unless_asked_for(path: str, version: str | None, remedy: str = READ_IT_ANEW) -> None:
    """`check_unchanged` for before and after a file is read: nothing to do for an object."""
    if not is_object(path):
        check_unchanged(path, version, remedy)


def check_unchanged(path: str, version: str | None, remedy: str = READ_IT_ANEW) -> None:
    """Makes sure that a file is the version that is meant; None is any.

    Raises:
      InputChanged: it is another, or gone.
      OSError, ReadFails: it cannot be looked at.
    """
    if version is None:
        return
    found = _object_now(path) if is_object(path) else _file_now(path)
    if found is None:
        size = int(version.partition("@" if is_object(path) else ":")[0])
        raise InputChanged(f"{path} is gone since the files were listed, {size:,} bytes then: {remedy}")
    if found != version:
        raise InputChanged(f"{path} has changed since the files were listed ({change(version, found)}): {remedy}")


def _file_now(path: str) -> str | None:
    try:
        stat = status_of(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return version_of(stat.st_size, stat.st_mtime_ns, stat.st_ino)


def _object_now(path: str) -> str | None:
    where = ObjectPath.parse(path)
    info = store_of(where).info(where)
    return None if info is None else version_of(info.size, None, None, info.version)


def change(before: str, now: str) -> str:
    """What differs between two versions of a file, in words."""
    if "@" in before:
        (size, version), (new_size, new_version) = of_object(before), of_object(now)
        return ", ".join([*_sizes(size, new_size), f"version {version} -> {new_version}"])
    (size, mtime_ns, inode), (new_size, new_mtime_ns, new_inode) = (map(int, v.split(":")) for v in (before, now))
    said = _sizes(size, new_size)
    if mtime_ns != new_mtime_ns:
        said.append("modified {} -> {}".format(*_times(mtime_ns, new_mtime_ns)))
    if inode != new_inode:
        said.append("another file in its place")
    return ", ".join(said)


def _sizes(before: int, now: int) -> list[str]:
    return [f"size {before:,} -> {now:,} bytes"] if before != now else []


def _times(before_ns: int, now_ns: int) -> tuple[str, str]:
    """Both times in UTC; with their nanoseconds where nothing else tells them apart."""
    texts = [
        f"{datetime.datetime.fromtimestamp(ns // 10**9, datetime.UTC):%Y-%m-%d %H:%M:%S}" for ns in (before_ns, now_ns)
    ]
    if texts[0] == texts[1]:
        texts = [f"{text}.{ns % 10**9:09d}" for text, ns in zip(texts, (before_ns, now_ns), strict=True)]
    return f"{texts[0]}Z", f"{texts[1]}Z"
