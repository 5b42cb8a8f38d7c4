"""Which version of an input file a plan means, and whether the file is still that version.

A version is its size, time of change and inode. Its ctime is not part of it: that changes too when a
file is linked, renamed or given other permissions, which changes no byte, and nobody can put it back.
"""

from __future__ import annotations

import datetime
import os

READ_IT_ANEW = "put it back as it was and run the same command, or add --restart to read it as it is now"


class InputChanged(RuntimeError):
    """An input file is not the one that the plan means. The text names it, what changed, what to do."""


def version_of(size: int, mtime_ns: int, inode: int) -> str:
    """The version of a file, as a plan holds it."""
    return f"{size}:{mtime_ns}:{inode}"


def check_unchanged(path: str, version: str | None, remedy: str = READ_IT_ANEW) -> None:
    """Makes sure that a local file is the version that is meant; None is any.

    Raises:
      InputChanged: it is another, or gone.
      OSError: it cannot be looked at.
    """
    if version is None:
        return
    try:
        stat = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        size = int(version.partition(":")[0])
        raise InputChanged(f"{path} is gone since the files were listed, {size:,} bytes then: {remedy}") from None
    found = version_of(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if found != version:
        raise InputChanged(f"{path} has changed since the files were listed ({change(version, found)}): {remedy}")


def change(before: str, now: str) -> str:
    """What differs between two versions of a file, in words."""
    (size, mtime_ns, inode), (new_size, new_mtime_ns, new_inode) = (map(int, v.split(":")) for v in (before, now))
    said = []
    if size != new_size:
        said.append(f"size {size:,} -> {new_size:,} bytes")
    if mtime_ns != new_mtime_ns:
        said.append("modified {} -> {}".format(*_times(mtime_ns, new_mtime_ns)))
    if inode != new_inode:
        said.append("another file in its place")
    return ", ".join(said)


def _times(before_ns: int, now_ns: int) -> tuple[str, str]:
    """Both times in UTC; with their nanoseconds where nothing else tells them apart."""
    texts = [
        f"{datetime.datetime.fromtimestamp(ns // 10**9, datetime.UTC):%Y-%m-%d %H:%M:%S}" for ns in (before_ns, now_ns)
    ]
    if texts[0] == texts[1]:
        texts = [f"{text}.{ns % 10**9:09d}" for text, ns in zip(texts, (before_ns, now_ns), strict=True)]
    return f"{texts[0]}Z", f"{texts[1]}Z"
