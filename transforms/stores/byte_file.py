"""Base class of the project's read-only byte streams. It keeps the position."""

from __future__ import annotations

import io
from typing import Any


class ByteFile(io.RawIOBase):
    """A seekable stream of bytes. Subclasses implement `read` and `seek`, which maintain the position `_at`."""

    _at = 0

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
