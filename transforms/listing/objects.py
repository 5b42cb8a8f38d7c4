"""Patterns of objects in a store: what they match, by listing no more than what they have in common."""

from __future__ import annotations

import itertools

from beam_score.transforms.common.names import near_miss
from beam_score.transforms.listing.patterns import MAGIC, NoFiles, fits, is_hidden
from beam_score.transforms.stores.fetch import ask_store
from beam_score.transforms.stores.objects import ObjectInfo, ObjectPath
from beam_score.transforms.stores.registry import store_of

_NAMES_COMPARED = 1000


def object_at(path: str) -> ObjectInfo | None:
    """What its store says of an object; None where there is none. Raises OSError, StoreFails."""
    where = ObjectPath.parse(path)
    return ask_store(path, lambda: store_of(where).info(where))


def is_matched(path: str, pattern: str) -> bool:
    """Whether a pattern would match an object of that path, if it were there."""
    where, wanted = ObjectPath.parse(path), ObjectPath.parse(pattern)
    if (where.scheme, where.bucket) != (wanted.scheme, wanted.bucket):
        return False
    fixed, parts = _split(wanted)
    below = f"{fixed}/" if fixed else ""
    name = where.key.removeprefix(below)
    return where.key.startswith(below) and fits(name.split("/"), parts) and not is_hidden(name, "/".join(parts))


def _split(pattern: ObjectPath) -> tuple[str, list[str]]:
    """The folder that a pattern names outright, and the parts to match below it. A folder stands for the objects right
    in it."""
    parts = pattern.key.split("/")
    fixed = list(itertools.takewhile(lambda part: not MAGIC.search(part), parts))
    if not pattern.key or len(fixed) == len(parts):
        return pattern.key, ["*"]
    return "/".join(fixed), parts[len(fixed) :]


def matching_objects(pattern: str, folders: list[str] | None = None) -> list[ObjectInfo]:
    """The objects that a pattern matches; by the rules of local files.

    Args:
      folders: gets the folders that match, which are passed over: a pattern takes objects.

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
    return ask_store(pattern, lambda: _matches(path, [] if folders is None else folders))


def _matches(pattern: ObjectPath, folders: list[str]) -> list[ObjectInfo]:
    store = store_of(pattern)
    if pattern.key and (named := store.info(pattern)) is not None:
        return [named]  # also a name with * or [ in it, named outright
    fixed, wanted = _split(pattern)
    folder = ObjectPath(pattern.scheme, pattern.bucket, fixed)
    # Where folders are patterns too, all in one go: a request for each folder would be thousands.
    below = len(folder.key) + 1 if folder.key else 0
    found, passed_over, anything = [], False, False
    matched_folders: dict[str, None] = {}
    for listed in store.list(folder, recursive=len(wanted) > 1 or wanted == ["**"]):
        anything = True
        name = getattr(listed, "path", listed).key[below:]
        if "**" not in wanted and (inner := folder_that_fits(name, wanted, isinstance(listed, ObjectPath))):
            matched_folders[str(folder / inner)] = None
        if not isinstance(listed, ObjectInfo):
            continue
        if name.endswith("/") or not name:
            continue  # what consoles make for an empty folder
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
        hint = near_miss(pattern.name, [s.name if isinstance(s, ObjectPath) else s.path.name for s in siblings])
        raise NoFiles(f"{pattern} does not exist{hint}")
    skipped = " (names that begin with _ or . are passed over)" if passed_over else ""
    skipped += f"; {folders[0]} is a folder: add /* for the objects in it" if folders else ""
    there = f"looked for under {folder}/" if anything else f"there is nothing under {folder}/"
    raise NoFiles(f"no object matches {folder / '/'.join(wanted)}{skipped}; {there}")


def folder_that_fits(name: str, wanted: list[str], is_folder: bool) -> str | None:
    """The folder that the whole pattern matches, above an object (or one itself); None for none."""
    parts = name.split("/")
    if len(parts) < len(wanted) or (len(parts) == len(wanted) and not is_folder):
        return None
    inner = parts[: len(wanted)]
    matches = fits(inner, wanted) and not is_hidden("/".join(inner), "/".join(wanted))
    return "/".join(inner) if matches else None
