"""What the protocol asks of a local file system, tried on one small file before a run costs anything."""

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
"""What a file system says of something that it does not have; any other error may pass."""
_TRIES = 3


def problems_of_disk(source: Path, targets: Sequence[Path]) -> list[str]:
    """Tries to write a file, to lock it, and to give it a second name in each target folder; all is removed again.

    A full disk is not a problem here: a finished run needs no room.

    Args:
      source: a folder that is there, where parts are written first.
      targets: folders that are there, where parts get their final names.

    Returns:
      a sentence for each thing that the file system does not have, with the folder.

    Raises:
      OSError: something else went wrong; the same command may find it mended.
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
            continue  # a run was published here meanwhile, and has taken it for what a dead launch has left
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
        found.append(f"{source}: its file system has no locks ({error.strerror}), which a run needs: {_ELSEWHERE}")
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
            f"{target} is on another file system than {source}: parts get their final names there by hard links, so "
            "all of the output folder must be on one; remove the mount or the link"
        )
    return (
        f"{target}: its file system makes no hard links ({error.strerror}), by which parts get their final names: "
        f"{_ELSEWHERE}"
    )


def _remove(path: Path) -> None:
    for _ in range(3):
        with contextlib.suppress(OSError):  # `clean` removes what is left in an output
            disk().unlink(path)
            return


PROBE = "probe"
"""What a launch tries the file system with, always as a temporary file; see `transforms.durable.disk_probe`."""
