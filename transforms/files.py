"""Which files a job reads: patterns listed once, at launch, with what tells a changed file.

A pattern is of local files, or of objects in a store; the rules are the same (`transforms.object_patterns`).
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from transforms.file_versions import change, version_of
from transforms.names import near_miss
from transforms.object_patterns import matching_objects
from transforms.objects import is_object
from transforms.patterns import MAGIC, NoFiles, is_hidden

FORMAT_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
}
_COMPRESSED = re.compile(r"\.(?:gz|gzip|bz2|zst|zstd)$", re.IGNORECASE)
_NAMED = 3  # files that have changed; the others are counted


@dataclasses.dataclass(frozen=True)
class InputFile:
    """A file as it was at launch.

    Attributes:
      path: as the pattern gives it.
      size: in bytes.
      mtime_ns, inode: of a local file; with the size, what tells whether it has changed since.
      object_version: of an object in a store, what tells that: a generation (GCS), an ETag (S3).
    """

    path: str
    size: int
    mtime_ns: int | None = None
    inode: int | None = None
    object_version: str | None = None

    @property
    def version(self) -> str:
        """See `transforms.file_versions`."""
        return version_of(self.size, self.mtime_ns, self.inode, self.object_version)


def list_files(patterns: Sequence[str]) -> tuple[list[InputFile], list[str]]:
    """The files that the patterns match, each once, in order of name; and what is wrong with the
    patterns, a sentence each. Names that begin with `_` or `.` are passed over unless named outright.

    Raises:
      StoreFails: a store does not answer.
    """
    found: dict[str, InputFile] = {}
    problems = []
    real = _RealPaths()
    for pattern in patterns:
        try:
            if is_object(pattern):
                for object_ in matching_objects(pattern):
                    path = str(object_.path)
                    found.setdefault(path, InputFile(path, object_.size, object_version=object_.version))
                continue
            for path in _matches(pattern):
                stat = os.stat(path)
                # Two spellings of one path are one file: no row is scored twice.
                found.setdefault(real(path), InputFile(path, stat.st_size, stat.st_mtime_ns, stat.st_ino))
        except NoFiles as error:
            problems.append(NotThere(f"input.files: {error}"))
        except OSError as error:
            problems.append(f"input.files: {pattern}: {error.strerror}")
    for file in found.values():
        if (shown := os.fsencode(file.path).decode(errors="backslashreplace")) != file.path:
            problems.append(f"input.files: {shown}: the name is not UTF-8: give the file another")
        elif not is_object(file.path) and not os.access(file.path, os.R_OK):
            problems.append(f"input.files: {file.path} may not be read by this user: change its permissions")
    return sorted(found.values(), key=lambda f: f.path), problems


class NotThere(str):
    """A problem that goes away by itself once files arrive: nothing matches a pattern (yet)."""


class _RealPaths:
    """`os.path.realpath`, which looks at every folder on the way: of many files in one folder at these once."""

    def __init__(self):
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


def differing(before: Sequence[Mapping[str, Any]], now: Sequence[InputFile]) -> str:
    """Which files are not what they were, the first three named; "" where all are.

    Args:
      before: the `inputs` of a plan or manifest.
    """
    old = {f["path"]: version_of(f["size"], f["mtime_ns"], f["inode"], f.get("object_version")) for f in before}
    new = {f.path: f.version for f in now}
    said = []
    for path in sorted({**old, **new}):
        if path not in new:
            said.append(f"{path} is not there any more")
        elif path not in old:
            said.append(f"{path} is new")
        elif old[path] != new[path]:
            said.append(f"{path}: {change(old[path], new[path])}")
    more = [f"and {len(said) - _NAMED:,} more"] if len(said) > _NAMED else []
    return "; ".join(said[:_NAMED] + more)


def _matches(pattern: str) -> list[str]:
    if os.path.isfile(pattern):
        return [pattern]  # also a name with * or [ in it, named outright
    if os.path.isdir(pattern):
        pattern = os.path.join(pattern, "*")
    elif not MAGIC.search(pattern):
        folder, name = os.path.split(pattern)
        hint = (
            near_miss(name, os.listdir(folder or "."))
            if os.path.isdir(folder or ".")
            else f"; there is no folder {folder!r}"
        )
        raise NoFiles(f"{pattern} does not exist{hint}")
    fixed = len(_fixed_part(pattern))
    paths = [
        p
        for p in glob.iglob(pattern, recursive=True)
        if os.path.isfile(p) and not is_hidden(p[fixed:], pattern[fixed:])
    ]
    if not paths:
        skipped = " (names that begin with _ or . are passed over)" if glob.glob(pattern) else ""
        raise NoFiles(f"no file matches {pattern}{skipped}; relative patterns start at {os.getcwd()}")
    return paths


def _fixed_part(pattern: str) -> str:
    """The folders before the first that is a pattern."""
    before = pattern[: MAGIC.search(pattern).start()]
    return before[: before.rfind(os.sep) + 1]


def format_of(files: Sequence[InputFile]) -> tuple[str | None, str]:
    """The format that the suffixes tell, compression's apart; else None and why not."""
    by_format: dict[str | None, str] = {}
    for file in files:
        suffix = os.path.splitext(_COMPRESSED.sub("", file.path))[1].lower()
        by_format.setdefault(FORMAT_SUFFIXES.get(suffix), file.path)
    if len(by_format) == 1 and None not in by_format:
        return next(iter(by_format)), ""
    shown = ", ".join(f"{path} ({kind or 'unknown'})" for kind, path in by_format.items())
    return (
        None,
        f"input.format cannot be told from the suffixes: {shown}; set input.format to csv, jsonl, parquet or tfrecord",
    )
