"""Patterns of objects in a store: what they match, by listing no more than what they have in common."""

from __future__ import annotations

import itertools

from transforms.names import near_miss
from transforms.object_fetch import ask_store
from transforms.objects import ObjectInfo, ObjectPath, store_of
from transforms.patterns import MAGIC, NoFiles, fits, is_hidden

_NAMES_COMPARED = 1000


def matching_objects(pattern: str) -> list[ObjectInfo]:
    """The objects that a pattern matches; by the rules of local files.

    Raises:
      NoFiles: there are none; the text says what was looked for.
      PermissionError, FileNotFoundError: the bucket may not be listed, or is not there.
      StoreFails: the store does not answer.
    """
    try:
        path = ObjectPath.parse(pattern)
    except ValueError as error:
        raise NoFiles(str(error)) from None
    if MAGIC.search(path.bucket):
        raise NoFiles(f"{pattern}: the bucket has to be named outright, {path.bucket!r} is a pattern")
    return ask_store(pattern, lambda: _matches(path))


def _matches(pattern: ObjectPath) -> list[ObjectInfo]:
    store = store_of(pattern)
    if pattern.key and (named := store.info(pattern)) is not None:
        return [named]  # also a name with * or [ in it, named outright
    parts = pattern.key.split("/")
    fixed = list(itertools.takewhile(lambda part: not MAGIC.search(part), parts))
    if not pattern.key or len(fixed) == len(parts):
        folder, wanted = pattern, ["*"]
    else:
        folder, wanted = ObjectPath(pattern.scheme, pattern.bucket, "/".join(fixed)), parts[len(fixed) :]
    # Where folders are patterns too, all in one go: a request for each folder would be thousands.
    below = len(folder.key) + 1 if folder.key else 0
    found, passed_over, anything = [], False, False
    for listed in store.list(folder, recursive=len(wanted) > 1 or wanted == ["**"]):
        anything = True
        if not isinstance(listed, ObjectInfo):
            continue
        name = listed.path.key[below:]
        if name.endswith("/") or not name:
            continue  # what consoles make for an empty folder
        if fits(name.split("/"), wanted):
            if is_hidden(name, "/".join(wanted)):
                passed_over = True
            else:
                found.append(listed)
    if found:
        return found
    if not MAGIC.search(pattern.key) and not anything and pattern.key:
        siblings = itertools.islice(store.list(pattern.parent, recursive=False), _NAMES_COMPARED)
        hint = near_miss(pattern.name, [s.name if isinstance(s, ObjectPath) else s.path.name for s in siblings])
        raise NoFiles(f"{pattern} does not exist{hint}")
    skipped = " (names that begin with _ or . are passed over)" if passed_over else ""
    there = f"looked for under {folder}/" if anything else f"there is nothing under {folder}/"
    raise NoFiles(f"no object matches {folder / '/'.join(wanted)}{skipped}; {there}")
