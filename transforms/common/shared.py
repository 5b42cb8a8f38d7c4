"""Objects of which a process has one copy, however often they are pickled: Beam pickles the steps of a pipeline, and
gives each of its threads copies of its own."""

from __future__ import annotations

import secrets
import threading
import weakref
from typing import Any, Self

_objects: weakref.WeakValueDictionary[str, Shared] = weakref.WeakValueDictionary()
_lock = threading.Lock()


class Shared:
    """A base for such objects. What is pickled is what the object was made with, not what has become of it: the first
    copy in a process is made from it, and all further ones are that copy."""

    _key: str
    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        made._key, made._made_with = secrets.token_hex(8), (args, kwargs)
        with _lock:
            _objects[made._key] = made
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_this_process, (type(self), self._key, *self._made_with)


def _of_this_process(cls: type[Shared], key: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shared:
    with _lock:
        found = _objects.get(key)
    if found is not None:
        return found
    made = cls(*args, **kwargs)
    with _lock:
        made._key = key
        return _objects.setdefault(key, made)
