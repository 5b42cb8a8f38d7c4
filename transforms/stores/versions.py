"""Versions of input files in a plan, and checks that a file is still at its version.

A local file's version is its size, mtime and inode. Its ctime is not part of the version: it also changes when
a file is linked, renamed or given other permissions, which changes no byte, and it cannot be restored.

An object's version is its size and its version in the store, a generation (GCS) or an ETag (S3). Every read requires
that version (`transforms.stores.object_file`), so no check is needed before or after.
"""

from __future__ import annotations

import datetime

from beam_score.transforms.stores.local_file import status_of
from beam_score.transforms.stores.objects import ObjectPath, is_object
from beam_score.transforms.stores.registry import store_of

READ_IT_ANEW = "put it back as it was and run the same command, or add --restart to read it as it is now"


class InputChanged(RuntimeError):
    """An input file is not at the version of the plan. The text names the file, what changed, and the remedy."""


def version_of(size: int, mtime_ns: int | None, inode: int | None, object_version: str | None = None) -> str:
    """Return the version of a file, as a plan contains it; see `transforms.listing.files.InputFile` for the fields."""
    if isinstance(mtime_ns, float):
        raise TypeError("version_of: mtime_ns is a float, expected nanoseconds as int: pass st_mtime_ns, not st_mtime")
    return f"{size}:{mtime_ns}:{inode}" if object_version is None else f"{size}@{object_version}"


def of_object(version: str) -> tuple[int, str]:
    """Return an object's size and its version in the store."""
    size, _, object_version = version.partition("@")
    return int(size), object_version


def check_unless_asked_for(path: str, version: str | None, remedy: str = READ_IT_ANEW) -> None:
    """Do `check_unchanged` before or after a file is read; objects need no check."""
    if not is_object(path):
        check_unchanged(path, version, remedy)


def check_unchanged(path: str, version: str | None, remedy: str = READ_IT_ANEW) -> None:
    """Check that a file is at a version; None accepts any.

    Raises:
      InputChanged: the file has changed or is gone.
      OSError, ReadFails: the file's metadata cannot be read.
    """
    if version is None:
        return
    found = _object_now(path) if is_object(path) else _file_now(path)
    if found is None:
        size = int(version.partition("@" if is_object(path) else ":")[0])
        raise InputChanged(f"{path} was removed after the files were listed (it had {size:,} bytes): {remedy}")
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
    """Describe the differences between two versions of a file."""
    if "@" in before:
        (size, version), (new_size, new_version) = of_object(before), of_object(now)
        return ", ".join([*_sizes(size, new_size), f"version {version} -> {new_version}"])
    (size, mtime_ns, inode), (new_size, new_mtime_ns, new_inode) = (map(int, v.split(":")) for v in (before, now))
    said = _sizes(size, new_size)
    if mtime_ns != new_mtime_ns:
        said.append("modified {} -> {}".format(*_times(mtime_ns, new_mtime_ns)))
    if inode != new_inode:
        said.append("replaced by another file")
    return ", ".join(said)


def _sizes(before: int, now: int) -> list[str]:
    return [f"size {before:,} -> {now:,} bytes"] if before != now else []


def _times(before_ns: int, now_ns: int) -> tuple[str, str]:
    """Format both times in UTC, with nanoseconds if they differ only in these."""
    texts = [
        f"{datetime.datetime.fromtimestamp(ns // 10**9, datetime.UTC):%Y-%m-%d %H:%M:%S}" for ns in (before_ns, now_ns)
    ]
    if texts[0] == texts[1]:
        texts = [f"{text}.{ns % 10**9:09d}" for text, ns in zip(texts, (before_ns, now_ns), strict=True)]
    return f"{texts[0]}Z", f"{texts[1]}Z"
