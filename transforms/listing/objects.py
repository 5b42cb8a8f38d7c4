"""Patterns of objects in a store. Only objects below the literal prefix of a pattern are listed."""

from __future__ import annotations

import itertools

from beam_score.transforms.common.names import near_miss
from beam_score.transforms.listing.patterns import MAGIC, NoFiles, fits, is_hidden
from beam_score.transforms.stores.fetch import ask_store
from beam_score.transforms.stores.objects import ObjectInfo, ObjectPath, path_of
from beam_score.transforms.stores.registry import store_of

_NAMES_COMPARED = 1000


def object_at(path: str) -> ObjectInfo | None:
    """Return the metadata of an object; None if it does not exist. Raises OSError, StoreFails."""
    where = ObjectPath.parse(path)
    return ask_store(path, lambda: store_of(where).info(where))


def is_matched(path: str, pattern: str) -> bool:
    """Return whether a pattern would match an object of that path if it existed."""
    where, wanted = ObjectPath.parse(path), ObjectPath.parse(pattern)
    if (where.scheme, where.bucket) != (wanted.scheme, wanted.bucket):
        return False
    fixed, parts = _split(wanted)
    below = f"{fixed}/" if fixed else ""
    name = where.key.removeprefix(below)
    return where.key.startswith(below) and fits(name.split("/"), parts) and not is_hidden(name, "/".join(parts))


def _split(pattern: ObjectPath) -> tuple[str, list[str]]:
    """Return the literal folder of a pattern, and the parts to match below it. A folder matches the objects directly
    in it."""
    parts = pattern.key.split("/")
    fixed = list(itertools.takewhile(lambda part: not MAGIC.search(part), parts))
    if not pattern.key or len(fixed) == len(parts):
        return pattern.key, ["*"]
    return "/".join(fixed), parts[len(fixed) :]


def matching_objects(pattern: str, folders: list[str] | None = None) -> list[ObjectInfo]:
    """Return the objects that a pattern matches, by the rules of local files.

    Args:
      folders: the folders that match, which are skipped, are appended to it.

    Raises:
      NoFiles: no object matches; the text describes the search.
      PermissionError, FileNotFoundError: the bucket may not be listed, or does not exist.
      StoreFails: the store failed.
    """
    try:
        path = ObjectPath.parse(pattern)
    except ValueError as error:
        raise NoFiles(str(error)) from None
    if MAGIC.search(path.bucket):
        raise NoFiles(f"{pattern}: the bucket must not be a pattern, found {path.bucket!r}")
    return ask_store(pattern, lambda: _matches(path, [] if folders is None else folders))


def _matches(pattern: ObjectPath, folders: list[str]) -> list[ObjectInfo]:
    store = store_of(pattern)
    if pattern.key and (named := store.info(pattern)) is not None:
        return [named]  # a literal name, which may contain * or [
    fixed, wanted = _split(pattern)
    folder = ObjectPath(pattern.scheme, pattern.bucket, fixed)
    # If folders are patterns too, everything is listed at once: one request per folder could be thousands.
    below = len(folder.key) + 1 if folder.key else 0
    found, passed_over, anything = [], False, False
    matched_folders: dict[str, None] = {}
    for listed in store.list(folder, recursive=len(wanted) > 1 or wanted == ["**"]):
        anything = True
        name = path_of(listed).key[below:]
        if "**" not in wanted and (inner := folder_that_fits(name, wanted, isinstance(listed, ObjectPath))):
            matched_folders[str(folder / inner)] = None
        if not isinstance(listed, ObjectInfo):
            continue
        if name.endswith("/") or not name:
            continue  # a placeholder that consoles create for an empty folder
        if fits(name.split("/"), wanted):
            if is_hidden(name, "/".join(wanted)):
                passed_over = True
            else:
                found.append(listed)
    folders += matched_folders
    if found:
        return found
    if not MAGIC.search(pattern.key) and not anything and pattern.key:
        siblings = itertools.islice(store.list(pattern.parent, recursive=False), _NAMES_COMPARED)
        hint = near_miss(pattern.name, [path_of(sibling).name for sibling in siblings])
        raise NoFiles(f"{pattern} does not exist{hint}")
    skipped = " (names that begin with _ or . are skipped)" if passed_over else ""
    skipped += f"; {folders[0]} is a folder: add /* for the objects in it" if folders else ""
    there = f"searched under {folder}/" if anything else f"there is nothing under {folder}/"
    raise NoFiles(f"no object matches {folder / '/'.join(wanted)}{skipped}; {there}")


def folder_that_fits(name: str, wanted: list[str], is_folder: bool) -> str | None:
    """Return the folder, above an object or itself listed, that the whole pattern matches; None for none."""
    parts = name.split("/")
    if len(parts) < len(wanted) or (len(parts) == len(wanted) and not is_folder):
        return None
    inner = parts[: len(wanted)]
    matches = fits(inner, wanted) and not is_hidden("/".join(inner), "/".join(wanted))
    return "/".join(inner) if matches else None
