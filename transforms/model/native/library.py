"""The C API of the installed TensorFlow: its shared libraries, found, loaded and declared."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import re
import sys
import threading
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

from beam_score.transforms.model.native.errors import NotNative, error_of
from beam_score.transforms.model.native.quiet import quiet

_DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tf-nightly")
_FILES = re.compile(r"^(tensorflow/libtensorflow_(framework|cc)\.(?:so[.\d]*|[.\d]*dylib)),", re.MULTILINE)
"""Lines of RECORD. On Linux the version follows the suffix (`.so.2`), on macOS it precedes it (`.2.dylib`)."""


class Output(ctypes.Structure):
    """`TF_Output`: one output of one operation of a graph."""

    _fields_ = (("operation", c_void_p), ("index", c_int))


DEALLOCATOR = ctypes.CFUNCTYPE(None, c_void_p, c_size_t, c_void_p)

_QUICK = {
    "TF_NewStatus": (c_void_p,),
    "TF_DeleteStatus": (None, c_void_p),
    "TF_GetCode": (c_int, c_void_p),
    "TF_Message": (c_char_p, c_void_p),
    "TF_NewGraph": (c_void_p,),
    "TF_GraphOperationByName": (c_void_p, c_void_p, c_char_p),
    "TF_NewSessionOptions": (c_void_p,),
    "TF_SetConfig": (None, c_void_p, c_char_p, c_size_t, c_void_p),
    "TF_DeleteSessionOptions": (None, c_void_p),
    "TF_NewTensor": (c_void_p, c_int, POINTER(c_int64), c_int, c_void_p, c_size_t, DEALLOCATOR, c_void_p),
    "TF_DeleteTensor": (None, c_void_p),
    "TF_TensorType": (c_int, c_void_p),
    "TF_NumDims": (c_int, c_void_p),
    "TF_Dim": (c_int64, c_void_p, c_int),
    "TF_TensorData": (c_void_p, c_void_p),
}
"""Functions that return within microseconds, called without releasing the interpreter lock: its release and
acquisition would take longer than they do. Result type, then argument types."""

_LONG = {
    "TF_LoadSessionFromSavedModel": (
        *(c_void_p, c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int),
        *(c_void_p, c_void_p, c_void_p),
    ),
    "TF_SessionRun": (
        *(None, c_void_p, c_void_p),
        *(POINTER(Output), POINTER(c_void_p), c_int, POINTER(Output), POINTER(c_void_p), c_int),
        *(c_void_p, c_int, c_void_p, c_void_p),
    ),
    "TF_CloseSession": (None, c_void_p, c_void_p),
    "TF_DeleteSession": (None, c_void_p, c_void_p),
    "TF_DeleteGraph": (None, c_void_p),
}
"""Functions that may take long; the interpreter lock is released meanwhile."""


class Library:
    """The functions of the C API, as attributes."""

    def __init__(self, path: str):
        quick, long = ctypes.PyDLL(path, ctypes.RTLD_LOCAL), ctypes.CDLL(path, ctypes.RTLD_LOCAL)
        for handle, functions in ((quick, _QUICK), (long, _LONG)):
            for name, (result, *arguments) in functions.items():
                function = getattr(handle, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:  # for type checkers: the functions are attributes of the instance
        raise AttributeError(name)

    def checked(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call a function whose last argument is a `TF_Status`. Raises OpError if that is not OK."""
        status = self.TF_NewStatus()
        try:
            result = function(*arguments, status)
            if code := self.TF_GetCode(status):
                raise error_of(code, self.TF_Message(status).decode("utf-8", "replace"))
            return result
        finally:
            self.TF_DeleteStatus(status)


_lock = threading.Lock()
_library: Library | None = None


def load_library() -> Library:
    """Return the C API of the installed TensorFlow, loaded once per process: some 0.5 s.

    Its symbols stay local, as they would clash with those of numpy.random. If Python's TensorFlow is imported too,
    before or after, both use the same copy of the library.

    Raises:
      NotNative: it is not there, or does not load.
    """
    global _library
    with _lock:
        if _library is None:
            framework, own = _files()
            try:
                with quiet():
                    _open(framework)
                    _open(own)
                    ctypes.CDLL(framework, ctypes.RTLD_LOCAL)
                    _library = Library(own)
            except (OSError, AttributeError) as error:
                raise NotNative(f"TensorFlow's C API does not load: {error}") from None
        return _library


def _open(path: str) -> None:
    """Open a library, so that it is there already when `ctypes.CDLL` opens it, which holds the interpreter lock
    meanwhile. An error is left to that."""
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = c_void_p, (c_char_p, c_int)
    dlopen(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL)


def _files() -> tuple[str, str]:
    """Return the paths of the two libraries."""
    if sys.byteorder != "little":
        raise NotNative("this machine is big-endian")
    for name in _DISTRIBUTIONS:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found = {kind: path for path, kind in _FILES.findall(distribution.read_text("RECORD") or "")}
        paths = [Path(str(distribution.locate_file(found[k]))) for k in ("framework", "cc") if k in found]
        if len(paths) == 2 and all(path.is_file() for path in paths):
            return str(paths[0]), str(paths[1])
        raise NotNative(f"the package {name} {distribution.version} does not contain TensorFlow's C libraries")
    raise NotNative(f"none of the packages {', '.join(_DISTRIBUTIONS)} is installed")
