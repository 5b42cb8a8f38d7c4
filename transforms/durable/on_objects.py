"""`transforms.durable.storage` over objects in a store: each function implements the one of the same name there.

A store has no folders, no links and no locks. As on disk, a single object decides: it is written only if it does not
exist, or is still at the version that was read. If a response was lost, the store may report a conflict with an earlier
try of the same call; so the existing object is then compared with the content to write. On a disk, removing a folder
stops everyone who still writes in it. Here `PLAN` does that: it is removed first, and writers check after a write
whether it still exists (docs/guarantees.md).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import google_crc32c

from beam_score.transforms.common import many
from beam_score.transforms.common.many import Item, Result
from beam_score.transforms.stores.objects import (
    ABSENT,
    AT_ONCE,
    ObjectInfo,
    ObjectPath,
    VersionMismatch,
    missing,
    path_of,
)
from beam_score.transforms.stores.registry import objects_in, store_of

log = logging.getLogger(__name__)

PLAN = "plan.json"
"""A run exists as long as this object in its folder does."""

ALIVE = "alive"
"""The folder, beside a plan, of objects that the processes at work on it renew."""

THREAD = "alive"
"""Name of the thread that renews an object while its process is at work."""

BEAT_S = 20
SILENT_S = 120
"""Seconds without a renewal after which `status` and `clean`, and nothing else, consider a process dead."""


def make_folder(path: ObjectPath) -> None:
    """Do nothing: a folder exists if it has objects."""


def sync_folder(path: ObjectPath) -> None:
    """Do nothing: a stored object is durable."""


def remove_if_empty(path: ObjectPath) -> None:
    """Do nothing: see `make_folder`."""


def remove_temporaries(path: ObjectPath, is_ours: Callable[[str], bool], is_ours_below: Callable[[str], bool]) -> None:
    """Do nothing: objects are written atomically, and a folder that is being removed is not renamed."""


def is_link(path: ObjectPath) -> bool:
    return False


def has_folders(path: ObjectPath) -> bool:
    return False


def is_folder(path: ObjectPath) -> bool:
    return next(iter(store_of(path).list(path, recursive=False)), None) is not None


def exists(path: ObjectPath) -> bool:
    return store_of(path).info(path) is not None


def size(path: ObjectPath) -> int | None:
    found = store_of(path).info(path)
    return None if found is None else found.size


def sizes(folder: ObjectPath) -> Callable[[str], int | None]:
    found = {name: listed.size for name, listed in _listed(folder).items()}
    return found.get


def size_below(path: ObjectPath) -> int:
    below = sum(found.size for found in objects_in(path))
    return below or size(path) or 0


def version(path: ObjectPath) -> str | None:
    found = store_of(path).info(path)
    return None if found is None else found.version


def read(path: ObjectPath) -> bytes | None:
    try:
        return store_of(path).read(path)
    except FileNotFoundError:
        return None


def read_stamped(path: ObjectPath) -> tuple[bytes, float]:
    found = store_of(path).info(path)
    if found is None:
        raise missing(path)
    return store_of(path).read(path), found.updated


def names(path: ObjectPath) -> list[str]:
    return sorted({path_of(found).name for found in store_of(path).list(path, recursive=False)})


def write_new(path: ObjectPath, *pieces: bytes | memoryview) -> None:
    try:
        store_of(path).write(path, pieces, only_over=ABSENT)
    except VersionMismatch:
        found = store_of(path).info(path)
        if found is None or not _is_content(found, pieces):
            raise


def _is_content(found: ObjectInfo, pieces: tuple[bytes | memoryview, ...]) -> bool:
    if found.size != sum(len(memoryview(piece).cast("B")) for piece in pieces):
        return False
    if found.crc32c is None:
        return store_of(found.path).read(found.path, version=found.version) == b"".join(pieces)
    crc = functools.reduce(google_crc32c.extend, pieces, 0)
    return found.crc32c == f"{crc:08x}"


def create_if_absent(path: ObjectPath, content: bytes, scratch: ObjectPath | None = None) -> bool:
    return _write_over(path, ABSENT, content)


def _write_over(path: ObjectPath, version: str, content: bytes) -> bool:
    """Write an object over a version; return whether this call did it."""
    try:
        store_of(path).write(path, [content], only_over=version)
    except VersionMismatch:
        return read(path) == content  # an earlier try succeeded, and its response was lost
    return True


def replace(path: ObjectPath, content: bytes, scratch: ObjectPath | None = None) -> None:
    store_of(path).write(path, [content])


def swap(path: ObjectPath, known: bytes | None, content: bytes | None, scratch: ObjectPath | None = None) -> bool:
    if known is None:
        return create_if_absent(path, content) if content is not None else not exists(path)
    store = store_of(path)
    found = store.info(path)
    try:
        if found is None or store.read(path, version=found.version) != known:
            return False
    except (VersionMismatch, FileNotFoundError):
        return False
    if content is not None:
        return _write_over(path, found.version, content)
    # An earlier try, or a faster caller with the same known content, may have removed it.
    return store.remove(path, only=found.version) or not exists(path)


def publish(names: Sequence[tuple[ObjectPath, ObjectPath]]) -> None:
    store = store_of(names[0][0])
    # Two listings for all files, instead of two requests for each.
    there = _listed(names[0][1].parent)
    staged = _listed(names[0][0].parent) if any(target.name in there for _, target in names) else {}
    copies = []
    for source, target in names:
        found = there.get(target.name)
        if found is not None and (source.name not in staged or _same(staged[source.name], found)):
            continue  # published before; if its source is gone, it was cleaned up since
        copies.append((source, target))
    store.copy_all(copies)


def _listed(folder: ObjectPath) -> dict[str, ObjectInfo]:
    """Return the objects directly in a folder, by name."""
    return {found.path.name: found for found in objects_in(folder, recursive=False)}


def _same(a: ObjectInfo, b: ObjectInfo) -> bool:
    if a.size != b.size:
        return False
    return a.crc32c == b.crc32c if None not in (a.crc32c, b.crc32c) else a.version == b.version


def remove(path: ObjectPath) -> None:
    store_of(path).remove(path)


def remove_all(paths: Sequence[ObjectPath]) -> None:
    store_of(paths[0]).remove_all(paths)


def remove_folder(path: ObjectPath, is_ours: Callable[[str], bool]) -> None:
    """Remove the plan first: from then on no launch continues the run, and writers remove objects that they write after
    the rest was listed."""
    store = store_of(path)
    store.remove(path / PLAN)
    below = f"{path.key}/"
    store.remove_all([found.path for found in objects_in(path) if is_ours(found.path.key.removeprefix(below))])


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    return many.parallel_map(function, items, AT_ONCE)


@contextlib.contextmanager
def lease(path: ObjectPath) -> Iterator[None]:
    """Renew an object beside `path` while the body runs. Only `status`, and `clean`, which spares live runs, depend on
    it."""
    if not exists(path):
        raise missing(path)
    own, over = path.parent / ALIVE / secrets.token_hex(6), threading.Event()
    _beat(path, own)

    def beat() -> None:
        while not over.wait(BEAT_S) and _beat(path, own):
            pass

    thread = threading.Thread(target=beat, name=THREAD, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError):
            remove(own)


def _beat(path: ObjectPath, own: ObjectPath) -> bool:
    """Renew an object; return whether `path` still exists."""
    try:
        if not exists(path):
            return False
        replace(own, b"alive")
    except OSError as error:
        log.debug("%s could not be renewed", own, exc_info=error)
    return True


@contextlib.contextmanager
def exclusive(path: ObjectPath) -> Iterator[bool]:
    yield not is_leased(path)


def still_exclusive(path: ObjectPath) -> bool:
    return not is_leased(path)


def is_leased(path: ObjectPath) -> bool:
    """Return whether an object was renewed recently, by the store's clock."""
    beats = [found.updated for found in objects_in(path.parent / ALIVE)]
    return bool(beats) and max(beats) > store_of(path).clock() - SILENT_S
