"""Base class of the project's read-only byte streams. It keeps the position."""

from __future__ import annotations

import io


class ByteFile(io.RawIOBase):
    """A seekable stream of bytes. Subclasses implement `read` and `seek`, which maintain the position `_at`."""

    _at = 0

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
