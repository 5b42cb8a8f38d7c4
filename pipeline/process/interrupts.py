"""Signals that ask a command to end. The first SIGINT may finish the splits in progress; the second ends at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


TEXT = "interrupted; the same command continues from here"


class Interrupted(BaseException):
    """A signal to end has arrived. Not a KeyboardInterrupt, which typer maps to an exit code of its own.

    Attributes:
      code: the exit code for the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.code = 128 + number


class Drained(RuntimeError):
    """The splits in progress were finished and no other was started, as requested."""


_drain: Callable[[], None] | None = None


def catch() -> None:
    """Make signals to end raise Interrupted in the main thread."""
    for number in SIGNALS:
        # SIGHUP is ignored already if the command shall survive its terminal (nohup).
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def ignore() -> None:
    """Ignore signals to end, because this process is ending and reports that first."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: object) -> None:
    global _drain
    if number == signal.SIGINT and _drain is not None:
        drain, _drain = _drain, None
        drain()
        return
    raise Interrupted(number)


@contextlib.contextmanager
def first_sigint_calls(drain: Callable[[], None]) -> Iterator[None]:
    """Make the first SIGINT during the body call `drain`, which should only set a flag; the next SIGINT raises."""
    global _drain
    _drain = drain
    try:
        yield
    finally:
        _drain = None
