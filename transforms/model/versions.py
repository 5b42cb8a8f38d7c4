"""Which folder a model path stands for: versions, what is no model at all, and a model's hash."""

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
from beam_score.transforms.stores.registry import store_of

_MOST_OBJECTS = 20_000
"""Below the path of a model in a store: more is a bucket of something else, and would take long to list."""


@dataclass(frozen=True)
class Version:
    """The SavedModel folder that a path and a version stand for.

    Attributes:
      path: the SavedModel folder itself, local or in a store.
      version: its number, as the folder is called; None for a folder that is not called a number.
      versions: all numbered versions beside it, ascending; empty when the path named the SavedModel.
    """

    path: str
    version: str | None
    versions: tuple[str, ...] = ()


def find_version(path: str | os.PathLike[str], version: str | int = "latest") -> Version:
    """Finds the SavedModel folder.

    Args:
      path: local, or in a store: a SavedModel folder, or a folder of numbered versions, as TensorFlow Serving takes it.
        Names that are not numbers, and folders without a `saved_model.pb`, are not versions.
      version: a number, or `latest` for the numerically largest.

    Raises:
      ModelError: there is nothing there, it is something else, or there is no such version.
    """
    folder, wanted = _Stored.at(path) if is_object(os.fspath(path)) else _Local(Path(path)), str(version)
    if not folder.is_folder:
        raise ModelError(folder.why_none())
    if folder.holds_model():
        own = folder.own_name
        if wanted != "latest" and not (_is_number(own) and _is_number(wanted) and int(own) == int(wanted)):
            raise ModelError(
                f"{folder} is a SavedModel itself, and version {wanted} was asked for: "
                "leave the version out, or give the folder that holds the numbered versions"
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
    """A path on this machine."""

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
    """Whether there is a file or folder of a kind; False only where nothing, or another kind, is there.

    Raises:
      ModelError: the path, or a folder on the way, is a link that leads nowhere: a version that is not looked at would
        let an older one pass for the latest.
      OSError, ReadFails: it cannot be looked at.
    """
    try:
        return kind(status_of(str(path)).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        for part in (path, path.parent):
            if os.path.islink(part) and not os.path.exists(part):
                raise ModelError(
                    f"{part} is a link to {os.readlink(part)}, which does not exist: mend or remove it"
                ) from None
        return False


@dataclass(frozen=True)
class _Stored:
    """A path in a store, and what is below it."""

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
    """The objects of a SavedModel folder in a store, by their names in it; those that count for its hash.

    Raises:
      ModelError: there is none.
    """
    stored = _Stored.at(path)
    if not stored.holds_model():
        raise ModelError(_not_a_saved_model(stored) if stored.is_folder else stored.why_none())
    return {n: o for n, o in stored.objects.items() if not any(part.startswith(".") for part in n.split("/"))}


def _below(where: ObjectPath) -> dict[str, ObjectInfo]:
    """The objects below a path, by what their names have more."""
    try:
        found = ask_store(str(where), lambda: list(itertools.islice(store_of(where).list(where), _MOST_OBJECTS + 1)))
    except (PermissionError, FileNotFoundError) as error:
        raise ModelError(f"{error.filename or where}: {error.strerror}") from None
    if len(found) > _MOST_OBJECTS:
        raise ModelError(f"{where} holds more than {_MOST_OBJECTS:,} objects: give the folder of the model alone")
    below = len(where.key) + 1 if where.key else 0
    named = {o.path.key[below:]: o for o in found}
    return {name: o for name, o in named.items() if name and not name.endswith("/")}  # no marks of empty folders


def hash_model(path: str | os.PathLike[str]) -> str:
    """SHA-256, in hexadecimal, of the relative names and contents of all files of a SavedModel
    folder. Names that begin with a dot are left out: TensorFlow writes none, file managers do.
    """
    root, total = Path(path), hashlib.sha256()
    for file in model_files(root):
        with LocalFile(str(file)) as stream:
            content = hashlib.file_digest(stream, "sha256").digest()
        # A digest has a fixed length, so no name and content can be mistaken for another pair.
        total.update(hashlib.sha256(file.relative_to(root).as_posix().encode()).digest() + content)
    return total.hexdigest()


def model_files(path: str | os.PathLike[str]) -> list[Path]:
    """All files of a SavedModel folder that count for its hash, in its order.

    Raises:
      ModelError: something in it is neither a file nor a folder.
      OSError, ReadFails: a folder, or a file, cannot be looked at.
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
                raise ModelError(f"{found} is neither a file nor a folder: a SavedModel holds nothing else")
    return sorted(files, key=lambda f: f.relative_to(root).as_posix())


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


SAVED_MODEL = "saved_model.pb"
_SOME_FILE = "a file: give a SavedModel folder, which holds a saved_model.pb"
_OTHER_FILES = {
    ".keras": "a Keras file: load it and write a SavedModel with model.export(path)",
    ".h5": "a Keras HDF5 file: load it and write a SavedModel with model.export(path)",
    ".hdf5": "a Keras HDF5 file: load it and write a SavedModel with model.export(path)",
    ".tflite": "a TensorFlow Lite model: give the SavedModel that it was converted from",
    ".pb": "a frozen graph, without signatures: give a SavedModel folder, which holds a saved_model.pb",
    ".pbtxt": "a graph as text: give a SavedModel folder, which holds a saved_model.pb",
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
    return f"{path} does not exist: {parent} holds no {missing!r}{hint}"


def _not_a_saved_model(folder: _Local | _Stored) -> str:
    names = folder.names
    suffixes = {Path(n).suffix.lower(): n for n in names}
    start = f"{folder} is not a SavedModel, nor a folder of numbered versions of one: "
    if folder.path.suffix == ".keras" or "model.weights.h5" in names:
        return start + "it is an unpacked Keras file; load the model and write a SavedModel with model.export(path)"
    for suffix in (".keras", ".h5", ".hdf5"):
        if suffix in suffixes:
            return start + f"it holds {suffixes[suffix]}, {_OTHER_FILES[suffix]}"
    if "tfhub_module.pb" in names:
        return start + "it is a TF1 Hub module, which has no serving signatures; give a SavedModel"
    if ".tflite" in suffixes:
        return start + f"it holds {suffixes['.tflite']}, {_OTHER_FILES['.tflite']}"
    if "saved_model.cpb" in names:
        return (
            start + "its graph is written in chunks (saved_model.cpb): not supported; export it without image format 2"
        )
    if "checkpoint" in names or ".index" in suffixes:
        return (
            start + "it holds a checkpoint, which is weights without a graph; "
            "load it into the model and write a SavedModel with model.export(path)"
        )
    if inner := [n for n in names if folder.holds_model(n)]:
        return start + f"SavedModels in it have names that are not numbers: give one of them, {', '.join(inner)}"
    if ".pb" in suffixes:
        return start + f"{suffixes['.pb']} in it is not called saved_model.pb; a frozen graph has no signatures"
    return start + "there is no saved_model.pb in it" + ("" if names else "; the folder is empty")
