"""A model in an object store, as a folder on this machine: copied once, for all processes, and found by its hash.

CACHE/models/SHA256/      a whole copy: the name is what `hash_model` says of it
CACHE/listings/KEY        which of them the objects of a folder are, by their names, sizes and versions
CACHE/locks/KEY           held by the process that copies
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
"""The environment variable that names the folder of copies."""

_PIECE_BYTES = 8 << 20
_AT_ONCE = 8


def model_bytes(path: str, sha256: str | None = None) -> int:
    """The size of a SavedModel on disk; arguments and errors as `local_model`."""
    return sum(os.path.getsize(file) for file in model_files(local_model(path, sha256)))


def local_model(path: str, sha256: str | None = None) -> str:
    """The folder on this machine that holds a model: itself where it is local, else a copy.

    Args:
      path: a SavedModel folder.
      sha256: of the model that is wanted, where that is known: then a copy is taken without asking the store.

    Returns:
      what the store holds now, where no copy of that hash is here; the caller looks what it is.

    Raises:
      ModelError: the store holds no model there, or it was changed while it was copied.
      StoreFails: the store does not answer.
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
    """The folder on this machine that holds a model, and what `hash_model` says of it. Raises as `local_model`."""
    local = local_model(path)
    found = hash_model(local)
    if discard_damaged(path, local, found):
        local = local_model(path)
        found = hash_model(local)
    return local, found


@contextlib.contextmanager
def named(path: str, local: str) -> Iterator[None]:
    """What is wrong with a copy is told of the model that it is of."""
    try:
        yield
    except ModelError as error:
        raise ModelError(str(error).replace(local, path)) from error


def discard_damaged(path: str, local: str, found: str) -> bool:
    """Takes away a copy that is not, or no more, what its name says. Returns whether it is none.

    Args:
      path: of the model.
      local: its folder here.
      found: what `hash_model` says of that.
    """
    if not is_object(path) or found == Path(local).name:
        return False
    shutil.rmtree(local, ignore_errors=True)
    return True


def _copied(path: str, objects: Mapping[str, ObjectInfo], folder: Path, mark: str) -> Path:
    """Copies a model under a name that nobody else uses, and renames it to its hash: a half copy is never found."""
    for left in folder.glob(f".{mark}.*"):  # of a process that died: who copies this model holds its lock
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
            raise ModelError(f"{path}: {name} was changed while it was copied: run the same command again") from None
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
            raise ModelError(f"{found.path} did not arrive as the store has it: run the same command again")


def _sum_of(file: Path) -> tuple[int, str]:
    """Size and checksum of a file."""
    checksum, size = google_crc32c.Checksum(), 0
    with open(file, "rb") as stream:
        while data := stream.read(_PIECE_BYTES):
            checksum.update(data)
            size += len(data)
    return size, checksum.digest().hex()


def _cache() -> Path:
    """The folder of copies, made where it is not there: `BEAM_SCORE_CACHE`, the user's cache, or a temporary one."""
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
        # In a folder for temporary files anyone may have made it.
        if folder.stat().st_uid == os.getuid() or len(choices) == 1:
            return folder
        failed = PermissionError(1, "belongs to another user", str(folder))
    raise OSError(failed.errno, f"models cannot be copied there ({failed.strerror}): set {CACHE}", failed.filename)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Of many processes one at a time; the lock goes with the process."""
    with open(path, "ab") as file:
        # Without locks on this file system each makes a copy, and the first that is whole stays.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
