"""Finds the SavedModel folder of a path and version, explains paths that are not models, and hashes models."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from beam_score.transforms.common.names import near_miss
from beam_score.transforms.model.signature import ModelError
from beam_score.transforms.stores.fetch import ask_store
from beam_score.transforms.stores.local_file import LocalFile, entries_of, status_of
from beam_score.transforms.stores.objects import ObjectInfo, ObjectPath, is_object
from beam_score.transforms.stores.registry import objects_in, store_of

_MOST_OBJECTS = 20_000
"""Maximum number of objects below the path of a model in a store: a bucket of other data would take long to list."""


@dataclass(frozen=True)
class Version:
    """The SavedModel folder of a path and a version.

    Attributes:
      path: the SavedModel folder itself, local or in a store.
      version: its number, the name of the folder; None if the name is not a number.
      versions: all numbered versions in its parent, ascending; empty if the path was that of the SavedModel.
    """

    path: str
    version: str | None
    versions: tuple[str, ...] = ()


def find_version(path: str | os.PathLike[str], version: str | int = "latest") -> Version:
    """Find the SavedModel folder of a path and a version.

    Args:
      path: local, or in a store: a SavedModel folder, or a folder of numbered versions, as for TensorFlow Serving.
        Names that are not numbers, and folders without a `saved_model.pb`, are not versions.
      version: a number, or `latest` for the numerically largest.

    Raises:
      ModelError: the path does not exist, is not a model, or has no such version.
    """
    path, wanted = os.fspath(path), str(version)
    folder = _Stored.at(path) if is_object(path) else _Local(Path(path))
    if not folder.is_folder:
        raise ModelError(folder.why_none())
    if folder.holds_model():
        own = folder.own_name
        if wanted != "latest" and not (_is_number(own) and _is_number(wanted) and int(own) == int(wanted)):
            raise ModelError(
                f"{folder} is a SavedModel itself, but version {wanted} was requested: "
                "leave out the version, or give the folder that contains the numbered versions"
            )
        return Version(str(folder), own if _is_number(own) else None)
    versions = sorted((n for n in folder.names if _is_number(n) and folder.holds_model(n)), key=lambda n: (int(n), n))
    if not versions:
        raise ModelError(_not_a_saved_model(folder))
    listed = ", ".join(versions)
    if wanted == "latest":
        found = versions[-1]
    elif not _is_number(wanted):
        raise ModelError(f"version {wanted!r}: expected 'latest' or a number; {folder} has versions {listed}")
    else:
        same = [v for v in versions if v == wanted] or [v for v in versions if int(v) == int(wanted)]
        if not same:
            raise ModelError(f"{folder} has no version {wanted}; it has {listed}")
        found = same[0]
    return Version(str(folder.path / found), found, tuple(versions))


@dataclass(frozen=True)
class _Local:
    """A local path."""

    path: Path

    @property
    def is_folder(self) -> bool:
        return _is(stat.S_ISDIR, self.path)

    @property
    def own_name(self) -> str:
        return self.path.resolve().name

    @property
    def names(self) -> list[str]:
        return sorted(entry.name for entry in entries_of(str(self.path)))

    def holds_model(self, name: str = "") -> bool:
        return _is(stat.S_ISREG, self.path / name / SAVED_MODEL)

    def why_none(self) -> str:
        return _not_a_folder(self.path)

    def __str__(self) -> str:
        return str(self.path)


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    """Return whether a path exists and is of a kind.

    Raises:
      ModelError: the path, or its folder, is a broken link: if such a version was skipped, an older one would be used
        as the latest.
      OSError, ReadFails: its metadata cannot be read.
    """
    try:
        return kind(status_of(str(path)).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        for part in (path, path.parent):
            if os.path.islink(part) and not os.path.exists(part):
                raise ModelError(
                    f"{part} is a link to {os.readlink(part)}, which does not exist: fix or remove the link"
                ) from None
        return False


@dataclass(frozen=True)
class _Stored:
    """A path in a store, and the objects below it."""

    path: ObjectPath
    objects: Mapping[str, ObjectInfo]

    @classmethod
    def at(cls, path: str) -> _Stored:
        try:
            where = ObjectPath.parse(path)
        except ValueError as error:
            raise ModelError(str(error)) from None
        return cls(where, _below(where))

    @property
    def is_folder(self) -> bool:
        return bool(self.objects)

    @property
    def own_name(self) -> str:
        return self.path.name

    @property
    def names(self) -> list[str]:
        return sorted({name.partition("/")[0] for name in self.objects})

    def holds_model(self, name: str = "") -> bool:
        return f"{name}/{SAVED_MODEL}".lstrip("/") in self.objects

    def why_none(self) -> str:
        store = store_of(self.path)
        if self.path.key and ask_store(str(self.path), lambda: store.info(self.path)) is not None:
            if self.path.name == SAVED_MODEL:
                return f"{self.path} is an object of a SavedModel: give its folder, {self.path.parent}"
            return f"{self.path} is " + _OTHER_FILES.get(self.path.suffix.lower(), _SOME_FILE)
        beside = ask_store(str(self.path), lambda: list(store.list(self.path.parent, recursive=False)))
        names = [b.name if isinstance(b, ObjectPath) else b.path.name for b in beside]
        return f"{self.path} does not exist: there is nothing under it{near_miss(self.path.name, names)}"

    def __str__(self) -> str:
        return str(self.path)


def listed_model(path: str) -> dict[str, ObjectInfo]:
    """Return the objects of a SavedModel folder in a store that its hash covers, by their relative names.

    Raises:
      ModelError: the path is not a SavedModel folder.
    """
    stored = _Stored.at(path)
    if not stored.holds_model():
        raise ModelError(_not_a_saved_model(stored) if stored.is_folder else stored.why_none())
    return {n: o for n, o in stored.objects.items() if not any(part.startswith(".") for part in n.split("/"))}


def _below(where: ObjectPath) -> dict[str, ObjectInfo]:
    """Return the objects below a path, by their relative names."""
    try:
        found = ask_store(str(where), lambda: list(itertools.islice(objects_in(where), _MOST_OBJECTS + 1)))
    except (PermissionError, FileNotFoundError) as error:
        raise ModelError(f"{error.filename or where}: {error.strerror}") from None
    if len(found) > _MOST_OBJECTS:
        raise ModelError(f"{where} contains more than {_MOST_OBJECTS:,} objects: give the folder of the model alone")
    below = len(where.key) + 1 if where.key else 0
    named = {o.path.key[below:]: o for o in found}
    return {name: o for name, o in named.items() if name and not name.endswith("/")}  # no placeholders of empty folders


def hash_model(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256, in hexadecimal, of the relative names and contents of all files of a SavedModel
    folder. Names that begin with a dot are ignored: file managers write them, TensorFlow does not.
    """
    root, total = Path(path), hashlib.sha256()
    for file in model_files(root):
        with LocalFile(str(file)) as stream:
            content = hashlib.file_digest(stream, "sha256").digest()
        # Digests have a fixed length, so different pairs of name and content cannot be confused.
        total.update(hashlib.sha256(file.relative_to(root).as_posix().encode()).digest() + content)
    return total.hexdigest()


def model_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return all files of a SavedModel folder that its hash covers, in that order.

    Raises:
      ModelError: an entry is neither a file nor a folder.
      OSError, ReadFails: the metadata of a folder or file cannot be read.
    """
    root, files, folders = Path(path), [], [Path(path)]
    while folders:
        folder = folders.pop()
        for entry in entries_of(str(folder)):
            if entry.name.startswith("."):
                continue
            found = folder / entry.name
            mode = status_of(str(found)).st_mode
            if stat.S_ISDIR(mode):
                folders.append(found)
            elif stat.S_ISREG(mode):
                files.append(found)
            else:
                raise ModelError(f"{found} is neither a file nor a folder: a SavedModel contains nothing else")
    return sorted(files, key=lambda f: f.relative_to(root).as_posix())


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


SAVED_MODEL = "saved_model.pb"
_SOME_FILE = "a file: give a SavedModel folder, which contains a saved_model.pb"
_OTHER_FILES = {
    ".keras": "a Keras file: load it and write a SavedModel with model.export(path)",
    ".h5": "a Keras HDF5 file: load it and write a SavedModel with model.export(path)",
    ".hdf5": "a Keras HDF5 file: load it and write a SavedModel with model.export(path)",
    ".tflite": "a TensorFlow Lite model: give the SavedModel that it was converted from",
    ".pb": "a frozen graph, without signatures: give a SavedModel folder, which contains a saved_model.pb",
    ".pbtxt": "a graph as text: give a SavedModel folder, which contains a saved_model.pb",
    ".onnx": "an ONNX model: give a SavedModel folder",
    ".zip": "an archive: unpack it and give the folder",
    ".tar": "an archive: unpack it and give the folder",
    ".gz": "an archive: unpack it and give the folder",
    ".tgz": "an archive: unpack it and give the folder",
}


def _not_a_folder(path: Path) -> str:
    if path.name == "saved_model.pb" and path.is_file():
        return f"{path} is a file inside a SavedModel: give its folder, {path.parent}"
    if path.exists():
        return f"{path} is " + _OTHER_FILES.get(path.suffix.lower(), _SOME_FILE)
    parent = next(p for p in path.absolute().parents if p.is_dir())
    missing = path.absolute().relative_to(parent).parts[0]
    hint = near_miss(missing, (p.name for p in parent.iterdir()))
    return f"{path} does not exist: {parent} does not contain {missing!r}{hint}"


def _not_a_saved_model(folder: _Local | _Stored) -> str:
    names = folder.names
    suffixes = {Path(n).suffix.lower(): n for n in names}
    start = f"{folder} is not a SavedModel, nor a folder of numbered versions of one: "
    if folder.path.suffix == ".keras" or "model.weights.h5" in names:
        return start + "it is an unpacked Keras file; load the model and write a SavedModel with model.export(path)"
    for suffix in (".keras", ".h5", ".hdf5"):
        if suffix in suffixes:
            return start + f"it contains {suffixes[suffix]}, {_OTHER_FILES[suffix]}"
    if "tfhub_module.pb" in names:
        return start + "it is a TF1 Hub module, which has no serving signatures; give a SavedModel"
    if ".tflite" in suffixes:
        return start + f"it contains {suffixes['.tflite']}, {_OTHER_FILES['.tflite']}"
    if "saved_model.cpb" in names:
        return (
            start + "its graph is written in chunks (saved_model.cpb): not supported; export it without image format 2"
        )
    if "checkpoint" in names or ".index" in suffixes:
        return (
            start + "it contains a checkpoint, which is weights without a graph; "
            "load it into the model and write a SavedModel with model.export(path)"
        )
    if inner := [n for n in names if folder.holds_model(n)]:
        return start + f"it contains SavedModels whose names are not numbers: give one of them, {', '.join(inner)}"
    if ".pb" in suffixes:
        return start + f"{suffixes['.pb']} in it is not named saved_model.pb; a frozen graph has no signatures"
    return start + "it has no saved_model.pb" + ("" if names else "; the folder is empty")
