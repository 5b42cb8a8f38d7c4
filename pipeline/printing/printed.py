"""What models, libraries and users' functions print, kept apart from what the command says.

Standard output belongs to the command: a summary, or JSON. What anything else writes to descriptors 1 and 2, from
Python, C++ or a worker process, goes into a pipe to the parent. It may hold rows, and any amount of them, so it is
counted and not shown, unless `--log-level debug` asks for it; then up to `MOST_BYTES` go to standard error.
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
"""Bytes of it that are shown, where they are."""

_CHUNK = 1 << 16


class Printed:
    """Two pipes, made before the process that scores is forked: one for what is counted, one for what is shown."""

    def __init__(self):
        self._counted, self._shown = os.pipe(), os.pipe()
        self._over, self._end = os.pipe()
        self._bytes = self._left_out = 0
        self._thread = threading.Thread(target=self._pump, name="printed", daemon=True)

    def separate(self, show: bool) -> tuple[TextIO, TextIO]:
        """Takes descriptors 1 and 2 of this process, and of those that it starts, for what is not the command's;
        `sys.stdout` and `sys.stderr` with them.

        Returns:
          the command's own standard output and standard error.

        Raises:
          OSError: one of them is closed.
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
        """In the parent, after the fork: begins to read. Signals are to be blocked at this moment: the thread must
        not take one from the main thread, which passes them on."""
        os.close(self._counted[1])
        os.close(self._shown[1])
        self._thread.start()

    def close(self) -> None:
        """In the parent, once the process is over: reads what is left, and says how much was not shown."""
        os.write(self._end, b"1")
        self._thread.join()
        if self._left_out:
            terminal.note(
                f"the model, libraries or your own functions printed {self._left_out:,} bytes, which are not shown, "
                "since they may hold rows: --log-level debug shows the first "
                f"{MOST_BYTES:,}"
            )

    def _pump(self) -> None:
        pipes = {self._counted[0], self._shown[0]}
        over = False
        while pipes and not over:
            ready, _, _ = select.select([*pipes, self._over], [], [])
            over = self._over in ready  # then what is in the pipes is read; others may hold them open for long
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
            with contextlib.suppress(OSError, ValueError):  # nobody reads standard error any more
                sys.stderr.write(terminal.printable_lines(shown.decode("utf-8", "backslashreplace")))
                sys.stderr.flush()


_printed: Printed | None = None


def open_printed(printed: Printed) -> None:
    """From now on `keep_apart` works in this process."""
    global _printed
    _printed = printed


def keep_apart(log_level: str) -> None:
    """From now on only the command itself writes to standard output and error; see the module."""
    if _printed is not None:
        with contextlib.suppress(OSError):  # standard output or error is closed: nothing is to be kept apart
            terminal.use(*_printed.separate(log_level == "debug"))
