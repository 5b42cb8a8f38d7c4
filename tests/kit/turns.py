"""Actors that work on one output folder and take turns, one system call at a time, in an order that a test chooses."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from beam_score.transforms.durable.disk import Disk


class Killed(BaseException):
    """Raised by every call of a dead actor, so that the call is not made."""


class Actor:
    """A function in a separate thread that runs up to its next system call at each turn.

    Attributes:
      name: describes its work.
      result, error: of the function; None before its end.
      calls: number of calls made.
    """

    def __init__(self, name: str, work: Callable[[], object]):
        self.name, self.work = name, work
        self.result = self.error = None
        self.calls = 0
        self.killed = False
        self._go, self._rests = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._rests.acquire()

    def _run(self) -> None:
        ACTORS[threading.get_ident()] = self
        self._wait()
        try:
            self.result = self.work()
        except BaseException as error:
            self.error = error
        finally:
            del ACTORS[threading.get_ident()]
            self._rests.release()

    def _wait(self) -> None:
        self._rests.release()
        self._go.acquire()

    def turn(self) -> None:
        """Called by the actor before each system call."""
        if self.killed:
            raise Killed
        self._wait()
        if self.killed:
            raise Killed
        self.calls += 1

    @property
    def over(self) -> bool:
        return not self._thread.is_alive() or self.result is not None or self.error is not None

    def step(self, calls: int = 1) -> None:
        """Let the actor make its next calls."""
        for _ in range(calls):
            if self.over:
                return
            self._go.release()
            self._rests.acquire()

    def finish(self, others: Sequence[Actor]) -> None:
        """Let the actor continue to its end; the others run only while it waits for a lock that one of them has."""
        for _ in range(200):
            self.step(1000)
            if self.over:
                return
            for other in others:
                other.step(20)
        raise AssertionError(f"{self.name} comes to no end")

    def kill(self) -> None:
        """Kill the actor before its next call: it makes no further call."""
        self.killed = True
        self.step()
        assert self.over


ACTORS: dict[int, Actor] = {}


class Turns(Disk):
    """A disk on which actors take turns; other threads use it unchanged. Nothing is made durable, because no test here
    cuts the power."""

    at_once = 1

    def close(self, descriptor: int) -> None:
        super().close(descriptor)  # the kernel closes the files of dead processes, too

    def inode(self, descriptor: int) -> int:
        return super().inode(descriptor)

    def lock(self, descriptor: int, how: int) -> None:
        while True:
            _turn()
            try:
                return super().lock(descriptor, how | fcntl.LOCK_NB)
            except BlockingIOError:
                if how & fcntl.LOCK_NB or threading.get_ident() not in ACTORS:
                    raise

    def fsync(self, descriptor: int) -> None:
        _turn()


def _turn() -> None:
    if (actor := ACTORS.get(threading.get_ident())) is not None:
        actor.turn()


def _taking_turns(name: str) -> Callable:
    def call(self, *arguments):
        _turn()
        return getattr(super(Turns, self), name)(*arguments)

    return call


for _name in ("open", "read", "write", "link", "rename", "unlink", "mkdir", "rmdir", "names", "stat"):
    setattr(Turns, _name, _taking_turns(_name))


def spoil(path: Path) -> None:
    """Change a byte in a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
