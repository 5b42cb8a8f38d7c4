"""The messages of TensorFlow Serving's API, from `tensorflow-serving-api`, without TensorFlow.

Its modules import message modules of `tensorflow`, whose package imports all of TensorFlow, in seconds. While they are
imported here, a bare package with the same folder takes its place; afterwards `import tensorflow` finds the real one.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

_NEEDED = ("", ".core", ".core.framework", ".core.protobuf", ".core.example")


@functools.cache
def messages(name: str) -> types.ModuleType:
    """Return a module of `tensorflow_serving.apis`, such as `predict_pb2`."""
    with _bare_tensorflow():
        return importlib.import_module(f"tensorflow_serving.apis.{name}")


@functools.cache
def tensor_proto() -> type:
    """Return the class `TensorProto`."""
    with _bare_tensorflow():
        return importlib.import_module("tensorflow.core.framework.tensor_pb2").TensorProto


@contextmanager
def _bare_tensorflow() -> Iterator[None]:
    if "tensorflow" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
    (folder,) = list(spec.submodule_search_locations)[:1]
    for part in _NEEDED:
        package = types.ModuleType(f"tensorflow{part}")
        package.__path__ = [folder + part.replace(".", "/")]
        sys.modules[package.__name__] = package
    try:
        yield
    finally:
        # The messages are known by their names, so importing their modules again gives the same classes.
        for name in [name for name in sys.modules if name == "tensorflow" or name.startswith("tensorflow.")]:
            del sys.modules[name]
