"""Local copies of models in object stores: copied once for all processes, and found by their hash.

CACHE/models/SHA256/      a complete copy, named by its `hash_model`
CACHE/listings/KEY        the hash of the copy for a listing (names, sizes and versions of the objects of a folder)
CACHE/locks/KEY           locked by the process that copies
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c

from beam_score.transforms.model.signature import ModelError
from beam_score.transforms.model.versions import hash_model, listed_model, model_files
from beam_score.transforms.stores.fetch import ask_store
from beam_score.transforms.stores.objects import ObjectInfo, VersionMismatch, is_object
from beam_score.transforms.stores.registry import store_of

CACHE = "BEAM_SCORE_CACHE"
"""Environment variable with the path of the folder of copies."""

_PIECE_BYTES = 8 << 20
_AT_ONCE = 8


def model_bytes(path: str, sha256: str | None = None) -> int:
    """Return the size of a SavedModel on disk; arguments and errors as in `local_model`."""
    return sum(os.path.getsize(file) for file in model_files(local_model(path, sha256)))


def local_model(path: str, sha256: str | None = None) -> str:
    """Return the folder of a model on this machine: the path itself if it is local, else that of a copy.

    Args:
      path: a SavedModel folder.
      sha256: the expected hash, if known: then an existing copy is used without a request to the store.

    Returns:
      the local folder. If there is no copy with that hash, it is a copy of the store's current model, which the caller
      has to verify.

    Raises:
      ModelError: there is no model at the path, or it was changed while it was copied.
      StoreFails: the store failed.
      OSError: the copy cannot be written.
    """
    if not is_object(path):
        return path
    cache = _cache()
    if sha256 is not None and (copy := cache / "models" / sha256).is_dir():
        return str(copy)
    objects = listed_model(path)
    said = [path, [(name, o.size, o.version) for name, o in sorted(objects.items())]]
    key = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    listing = cache / "listings" / key
    with _locked(cache / "locks" / key):
        with contextlib.suppress(FileNotFoundError):
            if (copy := cache / "models" / listing.read_text()).is_dir():
                return str(copy)
        copy = _copied(path, objects, cache / "models", key[:16])
        _write(listing, copy.name)
        return str(copy)


def hashed_model(path: str) -> tuple[str, str]:
    """Return the folder of a model on this machine, and its `hash_model`. Raises as `local_model`."""
    local = local_model(path)
    found = hash_model(local)
    if discard_damaged(path, local, found):
        local = local_model(path)
        found = hash_model(local)
    return local, found


@contextlib.contextmanager
def named(path: str, local: str) -> Iterator[None]:
    """Replace the path of a copy in errors by that of its model."""
    try:
        yield
    except ModelError as error:
        raise ModelError(str(error).replace(local, path)) from error


def discard_damaged(path: str, local: str, found: str) -> bool:
    """Remove a copy whose hash does not match its name. Returns whether it was removed.

    Args:
      path: of the model.
      local: its folder on this machine.
      found: the `hash_model` of that folder.
    """
    if not is_object(path) or found == Path(local).name:
        return False
    shutil.rmtree(local, ignore_errors=True)
    return True


def _copied(path: str, objects: Mapping[str, ObjectInfo], folder: Path, mark: str) -> Path:
    """Copy a model under a unique name, then rename it to its hash, so that a partial copy is never used."""
    for left in folder.glob(f".{mark}.*"):  # leftovers of a dead process: this one holds the lock
        shutil.rmtree(left, ignore_errors=True)
    begun = Path(tempfile.mkdtemp(prefix=f".{mark}.", dir=folder))
    try:
        _download(path, objects, begun)
        copy = folder / hash_model(begun)
        try:
            os.rename(begun, copy)
        except OSError:
            if not copy.is_dir():
                raise
        return copy
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _download(path: str, objects: Mapping[str, ObjectInfo], folder: Path) -> None:
    def piece(name: str, start: int) -> None:
        found = objects[name]
        end = min(start + _PIECE_BYTES, found.size)
        try:
            data = ask_store(str(found.path), lambda: store_of(found.path).read(found.path, start, end, found.version))
        except (VersionMismatch, FileNotFoundError):
            raise ModelError(f"{path}: {name} changed while it was copied: run the same command again") from None
        except PermissionError as error:
            raise ModelError(f"{found.path}: {error.strerror}") from None
        with open(folder / name, "r+b") as file:
            file.seek(start)
            file.write(data)

    pieces = []
    for name, found in objects.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        pieces += [(name, start) for start in range(0, found.size, _PIECE_BYTES)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        done = [pool.submit(piece, *p) for p in pieces]
        try:
            for one in done:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for name, found in objects.items():
        size, crc32c = _sum_of(folder / name)
        if size != found.size or found.crc32c not in (None, crc32c):
            raise ModelError(f"{found.path}: the copy differs from the object in the store: run the same command again")


def _sum_of(file: Path) -> tuple[int, str]:
    """Return size and checksum of a file."""
    checksum, size = google_crc32c.Checksum(), 0
    with open(file, "rb") as stream:
        while data := stream.read(_PIECE_BYTES):
            checksum.update(data)
            size += len(data)
    return size, checksum.digest().hex()


def _cache() -> Path:
    """Return the folder of copies, created if missing: `BEAM_SCORE_CACHE`, the user's cache, or a temporary folder."""
    if named := os.environ.get(CACHE):
        choices = [Path(named).absolute()]
    else:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        choices = [Path(home, "beam-score"), Path(tempfile.gettempdir(), f"beam-score-{os.getuid()}")]
    for folder in choices:
        try:
            for part in ("models", "listings", "locks"):
                (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            failed = error
            continue
        # In the folder for temporary files, another user may have created it.
        if folder.stat().st_uid == os.getuid() or len(choices) == 1:
            return folder
        failed = PermissionError(1, "belongs to another user", str(folder))
    raise OSError(failed.errno, f"cannot be used as model cache ({failed.strerror}): set {CACHE}", failed.filename)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock among processes; the system releases it if the process dies."""
    with open(path, "ab") as file:
        # On a file system without locks each process makes a copy, and the first complete one is kept.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
