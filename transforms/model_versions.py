"""Which folder a model path stands for: versions, what is no model at all, and a model's hash."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from transforms.names import near_miss
from transforms.saved_model import ModelError


@dataclass(frozen=True)
class Version:
    """The SavedModel folder that a path and a version stand for.

    Attributes:
      path: the SavedModel folder itself.
      version: its number, as the folder is called; None for a folder that is not called a number.
      versions: all numbered versions beside it, ascending; empty when the path named the SavedModel.
    """

    path: str
    version: str | None
    versions: tuple[str, ...] = ()


def find_version(path: str | os.PathLike[str], version: str | int = "latest") -> Version:
    """Finds the SavedModel folder.

    Args:
      path: a SavedModel folder, or a folder of numbered versions, as TensorFlow Serving takes it.
        Names that are not numbers, and folders without a `saved_model.pb`, are not versions.
      version: a number, or `latest` for the numerically largest.

    Raises:
      ModelError: there is nothing there, it is something else, or there is no such version.
    """
    folder, wanted = Path(path), str(version)
    if not folder.is_dir():
        raise ModelError(_not_a_folder(folder))
    if _is_saved_model(folder):
        own = folder.resolve().name
        if wanted != "latest" and not (_is_number(own) and _is_number(wanted) and int(own) == int(wanted)):
            raise ModelError(
                f"{folder} is a SavedModel itself, and version {wanted} was asked for: "
                "leave the version out, or give the folder that holds the numbered versions"
            )
        return Version(str(folder), own if _is_number(own) else None)
    versions = sorted(
        (p.name for p in folder.iterdir() if _is_number(p.name) and _is_saved_model(p)), key=lambda n: (int(n), n)
    )
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
    return Version(str(folder / found), found, tuple(versions))


def hash_model(path: str | os.PathLike[str]) -> str:
    """SHA-256, in hexadecimal, of the relative names and contents of all files of a SavedModel
    folder. Names that begin with a dot are left out: TensorFlow writes none, file managers do.
    """
    root, total = Path(path), hashlib.sha256()
    for file in model_files(root):
        with open(file, "rb") as stream:
            content = hashlib.file_digest(stream, "sha256").digest()
        # A digest has a fixed length, so no name and content can be mistaken for another pair.
        total.update(hashlib.sha256(file.relative_to(root).as_posix().encode()).digest() + content)
    return total.hexdigest()


def model_files(path: str | os.PathLike[str]) -> list[Path]:
    """All files of a SavedModel folder that count for its hash, in its order."""
    root, files = Path(path), []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [d for d in folders if not d.startswith(".")]
        files += [Path(folder, n) for n in names if not n.startswith(".")]
    return sorted(files, key=lambda f: f.relative_to(root).as_posix())


def _is_saved_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file()


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


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
        what = _OTHER_FILES.get(path.suffix.lower(), "a file: give a SavedModel folder, which holds a saved_model.pb")
        return f"{path} is {what}"
    parent = next(p for p in path.absolute().parents if p.is_dir())
    missing = path.absolute().relative_to(parent).parts[0]
    hint = near_miss(missing, (p.name for p in parent.iterdir()))
    return f"{path} does not exist: {parent} holds no {missing!r}{hint}"


def _not_a_saved_model(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())
    suffixes = {Path(n).suffix.lower(): n for n in names}
    start = f"{folder} is not a SavedModel, nor a folder of numbered versions of one: "
    if folder.suffix == ".keras" or "model.weights.h5" in names:
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
    if inner := [n for n in names if _is_saved_model(folder / n)]:
        return start + f"SavedModels in it have names that are not numbers: give one of them, {', '.join(inner)}"
    if ".pb" in suffixes:
        return start + f"{suffixes['.pb']} in it is not called saved_model.pb; a frozen graph has no signatures"
    return start + "there is no saved_model.pb in it" + ("" if names else "; the folder is empty")
