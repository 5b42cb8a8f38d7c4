"""Tests of the local file system operations that the protocol needs, with a small file, before a run starts."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from beam_score.transforms.durable.disk import disk
from beam_score.transforms.durable.on_disk import TEMPORARY

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CANNOT = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK, errno.EPERM, errno.EXDEV)
"""Errors of a file system that lacks an operation; any other error may be transient."""
_TRIES = 3


def problems_of_disk(source: Path, targets: Sequence[Path]) -> list[str]:
    """Try to write a file, to lock it, and to link it into each target folder; everything is removed again.

    A full disk is not a problem here: a finished run needs no space.

    Args:
      source: an existing folder, where parts are written first.
      targets: existing folders, where parts get their final names.

    Returns:
      a sentence for each operation that the file system lacks, with the folder.

    Raises:
      OSError: any other failure; a later run of the same command may succeed.
    """
    for _ in range(_TRIES):
        name = _new_name()
        try:
            descriptor = disk().open(source / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            if error.errno in _FULL:
                return []
            raise
        try:
            return _tried(descriptor, source, name, targets)
        except FileNotFoundError:
            if (source / name).exists() or not source.exists():
                raise
            continue  # a run was published here meanwhile, and removed the probe as a leftover of a dead launch
        finally:
            _remove(source / name)
    return []


def _new_name() -> str:
    return f".{PROBE}.{secrets.token_hex(6)}{TEMPORARY}"


def _tried(descriptor: int, source: Path, name: str, targets: Sequence[Path]) -> list[str]:
    found = []
    try:
        disk().lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise OSError(error.errno, error.strerror, str(source)) from None
        found.append(f"{source}: the file system has no locks ({error.strerror}), which a run needs: {_ELSEWHERE}")
    finally:
        disk().close(descriptor)
    for target in targets:
        second = target / _new_name()
        try:
            disk().link(source / name, second)
        except OSError as error:
            if error.errno not in (*_FULL, *_CANNOT):
                raise
            if error.errno not in _FULL:
                found.append(_why_no_link(source, target, error))
        else:
            _remove(second)
    return found


_ELSEWHERE = "write to another file system, or to gs:// or s3://"


def _why_no_link(source: Path, target: Path, error: OSError) -> str:
    if error.errno == errno.EXDEV:
        return (
            f"{target} is on another file system than {source}: parts get their final names by hard links, so the "
            "whole output folder must be on one file system; remove the mount or the link"
        )
    return (
        f"{target}: the file system has no hard links ({error.strerror}), which give parts their final names: "
        f"{_ELSEWHERE}"
    )


def _remove(path: Path) -> None:
    for _ in range(3):
        with contextlib.suppress(OSError):  # `clean` removes leftovers in an output
            disk().unlink(path)
            return


PROBE = "probe"
"""Name of the probe file, always as a temporary file."""
