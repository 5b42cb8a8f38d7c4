"""Run a command and measure all processes that it starts, on Linux."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

_EVERY_S = 0.5
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""

_LINGER_S = 20
"""Processes that a command leaves behind are killed after this time."""

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Process:
    """Output and resource use of a command that has ended.

    Attributes:
      stdout: its standard output.
      whole_seconds: from its start to its exit.
      whole_cpu_seconds: user and system time of the command and of all processes that it started.
      peak_mb: the largest sum, over these processes at one time, of resident memory, shared pages divided; or the
        peak of one of them, if that is larger.
    """

    stdout: str
    whole_seconds: float
    whole_cpu_seconds: float
    peak_mb: float


def run_process(command: Sequence[object], environment: Mapping[str, str] | None = None) -> Process:
    """Run a command to its end, and wait for processes that it leaves behind.

    Other children of this process must not end in the meantime: their time would be counted.

    Raises:
      RuntimeError: the command failed; the message includes the end of its output.
    """
    arguments = [str(part) for part in command]
    # Files, not pipes: an orphan that inherits a pipe keeps it open.
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr, _adopting_orphans():
        watch = _Watch()
        before, start = _reaped_cpu_s(), time.perf_counter()
        process = subprocess.Popen(arguments, stdout=stdout, stderr=stderr, env={**os.environ, **(environment or {})})
        with watch.running():
            _, status = os.waitpid(process.pid, 0)
            seconds = time.perf_counter() - start
            watch.reap_orphans()
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = [_read(file) for file in (stdout, stderr)]
    if process.returncode != 0:
        raise RuntimeError(f"exit {process.returncode}: {' '.join(arguments)}\n{texts[0][-500:]}{texts[1][-2000:]}")
    return Process(
        texts[0],
        seconds,
        # What was reaped is exact, but lacks processes whose parent ignores SIGCHLD, such as Ray's workers.
        max(_reaped_cpu_s() - before, watch.cpu_s()),
        watch.peak_mb,
    )


@contextlib.contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Make orphans among the descendants of this process its children."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_SUBREAPER, 0, 0, 0, 0)


class _Watch:
    """Samples of the descendants of this process that are started from now on.

    Attributes:
      peak_mb: the largest sum of their memory, or the peak of one of them: not `ru_maxrss`, which for a new process
        begins with the memory of the process that started it.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._others = set(_descendants())
        self._cpu_s: dict[tuple[int, str], float] = {}
        self._ended = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def cpu_s(self) -> float:
        """Return user and system time of all processes seen, each up to its last sample."""
        return sum(self._cpu_s.values())

    def reap_orphans(self) -> None:
        """Wait until no process is left; kill those that remain for too long."""
        deadline = time.monotonic() + _LINGER_S
        while left := _descendants().keys() - self._others:
            for process in left:
                if time.monotonic() > deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):  # a child of another process that is left
                    os.waitpid(process, os.WNOHANG)
            time.sleep(0.05)

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_S):
            mb = 0.0
            for process, fields in _descendants().items():
                if process not in self._others:
                    self._cpu_s[process, fields[_STARTED]] = (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS
                    mb += _value_mb(process, "smaps_rollup", "Pss:")
                    self.peak_mb = max(self.peak_mb, _value_mb(process, "status", "VmHWM:"))
            self.peak_mb = max(self.peak_mb, mb)


_PARENT, _USER, _SYSTEM, _STARTED = 1, 11, 12, 19
"""Fields of /proc/PID/stat after the name of the program: see proc_pid_stat(5)."""


def cpu_s(root: int) -> float:
    """Return user and system time of a process and of all processes below it that are alive."""
    fields = _descendants(root) | {root: _fields(root)}
    return sum(int(of[_USER]) + int(of[_SYSTEM]) for of in fields.values()) / _TICKS


def _fields(process: int) -> list[str]:
    with open(f"/proc/{process}/stat", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _descendants(root: int | None = None) -> dict[int, list[str]]:
    """Return the fields of /proc/PID/stat after the name, by process id, of all processes below one; by default, this
    one."""
    fields: dict[int, list[str]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields[int(name)] = _fields(int(name))
    children = collections.defaultdict(list)
    for process, of in fields.items():
        children[int(of[_PARENT])].append(process)
    below, unseen = {}, [root or os.getpid()]
    while unseen:
        for process in children[unseen.pop()]:
            below[process] = fields[process]
            unseen.append(process)
    return below


def _value_mb(process: int, file: str, name: str) -> float:
    """Return a size from a file in /proc/PID; 0 for a process that has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/{file}") as lines:
        for line in lines:
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    return 0.0


def _reaped_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
