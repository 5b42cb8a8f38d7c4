"""Signals that ask a command to end. SIGINT may be asked twice: the first time for what is in hand."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


TEXT = "interrupted; the same command goes on from here"


class Interrupted(BaseException):
    """A signal to end came. Not KeyboardInterrupt, of which typer makes an exit code of its own.

    Attributes:
      code: the exit code that tells of it.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.code = 128 + number


class Drained(RuntimeError):
    """The splits in hand are finished, and no other was begun, because that was asked for."""


_drain: Callable[[], None] | None = None


def catch() -> None:
    """From now on a signal to end raises Interrupted in the main thread."""
    for number in SIGNALS:
        # A command that is to live on when its terminal is closed (nohup) has it ignored.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def ignore() -> None:
    """From now on signals to end do nothing: this process is ending, and says so first."""
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
    """While the body runs, the first SIGINT calls `drain`, which should do no more than set a flag;
    the next one raises."""
    global _drain
    _drain = drain
    try:
        yield
    finally:
        _drain = None
