"""What files of ours have in common as streams: they are read at a position that is kept here, and never written."""

from __future__ import annotations

import io


class ByteFile(io.RawIOBase):
    """A seekable stream of bytes; a file of a kind brings `read` and `seek`, which keep `_at`."""

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
