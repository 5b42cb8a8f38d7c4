"""Separation of the command's output from the output of models, libraries and users' functions.

Standard output belongs to the command: a summary, or JSON. Any other output to descriptors 1 and 2, from Python, C++ or
a worker process, goes into a pipe to the parent. It may contain rows, and any amount of them, so it is counted and not
shown. With `--log-level debug`, up to `MOST_BYTES` of it go to standard error.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from typing import TextIO

from beam_score.pipeline.printing import terminal

MOST_BYTES = 1 << 20
"""Largest number of bytes shown with `--log-level debug`."""

_CHUNK = 1 << 16


class Printed:
    """Two pipes, created before the scoring process is forked: one for output to count, one for output to show."""

    def __init__(self) -> None:
        self._counted, self._shown = os.pipe(), os.pipe()
        self._over, self._end = os.pipe()
        self._bytes = self._left_out = 0
        self._thread = threading.Thread(target=self._pump, name="printed", daemon=True)

    def separate(self, show: bool) -> tuple[TextIO, TextIO]:
        """Redirect descriptors 1 and 2 of this process and its children, and `sys.stdout` and `sys.stderr`, to a pipe.

        Returns:
          standard output and standard error for the command itself.

        Raises:
          OSError: if standard output or standard error is closed.
        """
        out, err = (
            os.fdopen(os.dup(number), "w", buffering, encoding="utf-8", errors="backslashreplace")
            for number, buffering in ((1, -1), (2, 1))
        )
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor in (1, 2):
            os.dup2((self._shown if show else self._counted)[1], descriptor)
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
        return out, err

    def watch(self) -> None:
        """Start to read the pipes; called in the parent, after the fork. Block signals before: the reading thread must
        not receive one in place of the main thread, which passes signals on."""
        os.close(self._counted[1])
        os.close(self._shown[1])
        self._thread.start()

    def close(self) -> None:
        """Read the rest and report how much was not shown; called in the parent when the child has ended."""
        os.write(self._end, b"1")
        self._thread.join()
        if self._left_out:
            terminal.note(
                f"the model, libraries or your own functions printed {self._left_out:,} bytes, which are not shown, "
                "because they may contain rows: --log-level debug shows the first "
                f"{MOST_BYTES:,}"
            )

    def _pump(self) -> None:
        pipes = {self._counted[0], self._shown[0]}
        over = False
        while pipes and not over:
            ready, _, _ = select.select([*pipes, self._over], [], [])
            over = self._over in ready  # then read the rest once: other processes may keep the pipes open
            for descriptor in pipes & set(ready):
                data = os.read(descriptor, _CHUNK)
                if not data:
                    pipes.discard(descriptor)
                self._take(data, descriptor == self._shown[0])

    def _take(self, data: bytes, show: bool) -> None:
        shown = data[: max(0, MOST_BYTES - self._bytes)] if show else b""
        self._bytes += len(shown)
        self._left_out += len(data) - len(shown)
        if shown:
            with contextlib.suppress(OSError, ValueError):  # standard error is closed
                sys.stderr.write(terminal.printable_lines(shown.decode("utf-8", "backslashreplace")))
                sys.stderr.flush()


_printed: Printed | None = None


def open_printed(printed: Printed) -> None:
    """Make `keep_apart` work in this process, with these pipes."""
    global _printed
    _printed = printed


def keep_apart(log_level: str) -> None:
    """Let only the command itself write to standard output and error; see the module."""
    if _printed is not None:
        with contextlib.suppress(OSError):  # standard output or error is closed: there is nothing to separate
            terminal.use(*_printed.separate(log_level == "debug"))
