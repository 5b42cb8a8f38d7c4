"""Input files of a job: patterns are listed once, at launch, with the version of each file.

A pattern matches local files, or objects in a store, by the same rules (`transforms.listing.objects`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from beam_score.transforms.listing.local import Listing
from beam_score.transforms.listing.objects import is_matched, matching_objects, object_at
from beam_score.transforms.listing.patterns import NoFiles
from beam_score.transforms.stores.local_file import status_of
from beam_score.transforms.stores.objects import is_object
from beam_score.transforms.stores.versions import change, version_of

_NAMED = 3  # changed files that a message names; the others are counted


@dataclasses.dataclass(frozen=True)
class InputFile:
    """A file as it was at launch.

    Attributes:
      path: as the pattern gives it.
      size: in bytes.
      mtime_ns, inode: of a local file; with the size, they show whether it has changed since.
      object_version: of an object in a store, likewise: a generation (GCS), an ETag (S3).
    """

    path: str
    size: int
    mtime_ns: int | None = None
    inode: int | None = None
    object_version: str | None = None

    @property
    def version(self) -> str:
        """See `transforms.stores.versions`."""
        return version_of(self.size, self.mtime_ns, self.inode, self.object_version)


def list_files(
    patterns: Sequence[str], outputs: Sequence[str] = (), folders: list[str] | None = None
) -> tuple[list[InputFile], list[str]]:
    """Return the files that the patterns match, each once, in order of name; and the problems of the patterns, a
    sentence each. Names that begin with `_` or `.` are skipped unless the pattern contains them.

    Args:
      outputs: paths of files that the job is going to write, local ones with links resolved; a pattern that would
        match one is a problem.
      folders: the folders that match, which are skipped, are appended to it.

    Raises:
      ReadFails, StoreFails: the system, or a store, failed.
    """
    found: dict[str, InputFile] = {}
    problems = []
    folders = [] if folders is None else folders
    for pattern in patterns:
        try:
            if is_object(pattern):
                matched = [
                    InputFile(str(o.path), o.size, object_version=o.version) for o in matching_objects(pattern, folders)
                ]
                found |= {file.path: file for file in matched if file.path not in found}
                own = next((path for path in outputs if is_object(path) and is_matched(path, pattern)), None)
            else:
                listing = Listing(pattern, [path for path in outputs if not is_object(path)])
                for listed in listing.files:
                    # Two spellings of one path are one file: no row is scored twice.
                    stat = listed.stat
                    found.setdefault(listed.real, InputFile(listed.path, stat.st_size, stat.st_mtime_ns, stat.st_ino))
                problems += [f"input.files: {problem}" for problem in listing.problems]
                folders += listing.folders
                own = listing.own
            if own is not None:
                problems.append(
                    f"input.files: {pattern} would match files that this job writes ({own}), which a second run would "
                    "read: write elsewhere, or use a narrower pattern"
                )
        except NoFiles as error:
            problems.append(NotThere(f"input.files: {error}"))
        except OSError as error:
            # For a bucket that cannot be listed, the pattern is more helpful than the listed folder.
            where = pattern if is_object(pattern) else error.filename or pattern
            problems.append(f"input.files: {where}: {error.strerror}")
    for file in found.values():
        if (shown := os.fsencode(file.path).decode(errors="backslashreplace")) != file.path:
            problems.append(f"input.files: {shown}: the name is not UTF-8: rename the file")
        elif not is_object(file.path) and not os.access(file.path, os.R_OK):
            problems.append(f"input.files: {file.path} cannot be read by this user: change its permissions")
    return sorted(found.values(), key=lambda f: f.path), problems


def told_folders(folders: Sequence[str]) -> str:
    """Return a log message about folders that patterns match."""
    shown = ", ".join(sorted(folders)[:_NAMED])
    more = f" and {len(folders) - _NAMED:,} more" if len(folders) > _NAMED else ""
    return (
        f"input.files: folders that match are skipped ({shown}{more}): use ** in a pattern to match the files in them"
    )


class NotThere(str):
    """A problem that disappears when files arrive: no file matches a pattern (yet)."""


def look_at_file(path: str) -> InputFile | None:
    """Return a file, or an object, as it is now; None if it does not exist.

    Raises:
      OSError, ReadFails, StoreFails: its metadata cannot be read.
    """
    if is_object(path):
        info = object_at(path)
        return None if info is None else InputFile(path, info.size, object_version=info.version)
    try:
        stat = status_of(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return InputFile(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


def differing(before: Sequence[Mapping[str, Any]], now: Sequence[InputFile]) -> str:
    """Describe the files that have changed, the first three by name; "" if none has.

    Args:
      before: the `inputs` of a plan or manifest.
    """
    old = {f["path"]: version_of(f["size"], f["mtime_ns"], f["inode"], f.get("object_version")) for f in before}
    new = {f.path: f.version for f in now}
    said = []
    for path in sorted({**old, **new}):
        if path not in new:
            said.append(f"{path} no longer exists")
        elif path not in old:
            said.append(f"{path} is new")
        elif old[path] != new[path]:
            said.append(f"{path}: {change(old[path], new[path])}")
    more = [f"and {len(said) - _NAMED:,} more"] if len(said) > _NAMED else []
    return "; ".join(said[:_NAMED] + more)


def as_it_is(path: str) -> dict[str, Any] | None:
    """Return the fields of the current `InputFile` of a path; None if the file is gone.

    Raises:
      OSError, ReadFails, StoreFails: its metadata cannot be read, so its state is unknown.
    """
    found = look_at_file(path)
    return None if found is None else dataclasses.asdict(found)
