"""The folders of versions below the path of a model, local or in a store: which there are, and which are complete."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping

from beam_score.pipeline.serve.versions.bundle import NotAnIndex, shards
from beam_score.transforms.model.signature import ModelError
from beam_score.transforms.model.versions import SAVED_MODEL, model_files
from beam_score.transforms.stores.fetch import StoreFails, ask_store
from beam_score.transforms.stores.local_file import ReadFails, entries_of, status_of
from beam_score.transforms.stores.objects import ObjectPath, is_object, path_of
from beam_score.transforms.stores.registry import objects_in, store_of

LOOK_FAILS = (ModelError, OSError, ReadFails, StoreFails)
"""Errors of a look at a folder."""

_INDEX = "variables/variables.index"
_SHARD = re.compile(r"variables/variables\.data-\d{5}-of-(\d{5})")
_TEMPORARY = re.compile(r".*(\.tmp|\.part|\.partial|~)|.*\.tempstate\d+|variables_temp|_temporary", re.IGNORECASE)
_MOST_NUMBER = (1 << 63) - 1


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of a version as it was found.

    Attributes:
      mark: changes with any file in it.
      missing: a phrase on what is missing from a whole SavedModel; None if nothing is.
      changed: seconds since the epoch of its last change.
    """

    mark: str
    missing: str | None
    changed: float


def version_folders(path: str) -> dict[int, str]:
    """Return the folders of versions below a path, by number; a path that is a SavedModel itself is its only version.

    Raises: `LOOK_FAILS`.
    """
    entries = _entries(path)
    if SAVED_MODEL in entries:
        own = path.rstrip("/").rpartition("/")[2]
        return {int(own) if _is_number(own) else 1: path}
    # Of names that are the same number, such as 7 and 007, the shortest counts.
    numbers = (name for name, is_folder in entries.items() if _is_number(name) and is_folder())
    found = sorted(numbers, key=lambda name: (-len(name), name))
    return {int(name): f"{path.rstrip('/')}/{name}" for name in found}


def inspect(path: str) -> Folder:
    """Return a folder of a version as it is now. Raises: `LOOK_FAILS`."""
    files = _stored(path) if is_object(path) else _local(path)
    mark = repr(sorted((name, *more) for name, (*more, _) in files.items()))
    changed = max((when for *_, when in files.values()), default=0.0)
    return Folder(mark, _missing(path, {name: size for name, (size, *_) in files.items()}), changed)


def _missing(path: str, sizes: Mapping[str, int]) -> str | None:
    if not sizes.get(SAVED_MODEL):
        return f"{SAVED_MODEL} is missing"
    for name in sizes:
        if any(_TEMPORARY.fullmatch(part) for part in name.split("/")):
            return f"{name} is a temporary file"
    if not any(name.startswith("variables/") for name in sizes):
        return None  # a model without variables
    if not sizes.get(_INDEX):
        return f"{_INDEX} is missing"
    return next(_missing_shards(path, sizes), None)


def _missing_shards(path: str, sizes: Mapping[str, int]) -> Iterator[str]:
    if is_object(path):  # each object is written as a whole
        counts = {int(found[1]) for name in sizes if (found := _SHARD.fullmatch(name))} or {1}
        needed = dict.fromkeys(range(max(counts)), 0)
    else:
        try:
            with open(f"{path}/{_INDEX}", "rb") as file:
                needed = shards(file.read())
        except NotAnIndex as error:
            yield f"{_INDEX} is {error}"
            return
    for shard, least in needed.items():
        name = f"variables/variables.data-{shard:05}-of-{len(needed):05}"
        if name not in sizes:
            yield f"{name} is missing"
        elif sizes[name] < least:
            yield f"{name} has {sizes[name]:,} of {least:,} bytes"


def _entries(path: str) -> dict[str, Callable[[], bool]]:
    """Return what is below a path, by name: calls that say whether it is a folder."""
    if not is_object(path):
        return {entry.name: entry.is_dir for entry in entries_of(path)}
    where = _parsed(path)
    listed = ask_store(path, lambda: list(store_of(where).list(where, recursive=False)))
    folders = {found.name for found in listed if isinstance(found, ObjectPath)}
    return {(name := path_of(found).name): functools.partial(folders.__contains__, name) for found in listed}


def _local(path: str) -> dict[str, tuple[int, int, int, float]]:
    """Return size, inode, and times of change of the files of a folder, by relative name."""
    files = {}
    for file in model_files(path):
        found = status_of(str(file))
        name = os.path.relpath(file, path)
        files[name] = (found.st_size, found.st_ino, found.st_mtime_ns, max(found.st_mtime, found.st_ctime))
    return files


def _stored(path: str) -> dict[str, tuple[int, str, float]]:
    where = _parsed(path)
    found = ask_store(path, lambda: list(objects_in(where)))
    below = len(where.key) + 1
    named = {one.path.key[below:]: one for one in found}
    return {
        name: (one.size, one.version, one.updated)
        for name, one in named.items()
        if name and not any(part.startswith(".") for part in name.split("/"))
    }


def _parsed(path: str) -> ObjectPath:
    try:
        return ObjectPath.parse(path)
    except ValueError as error:
        raise ModelError(str(error)) from None


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and int(name) <= _MOST_NUMBER
