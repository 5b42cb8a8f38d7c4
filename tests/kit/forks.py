"""A fork server: real processes that run the real command line or a worker, without the seconds that imports take.

`python tests/kit/forks.py` imports everything once, starts no thread, and forks a child for each request, a line of
JSON on standard input. Each child has its own session, and can be killed or stopped like any other process.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import gc
import importlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import disks

ROOT = Path(__file__).parents[2]

_TIMEOUT_S = 120

_STREAMS = (".err", ".out")

_IMPORTED_LATE = (
    "apache_beam.runners.portability.fn_api_runner",
    "apache_beam.ml.inference.base",
    "outcomes",
    "beam_score.pipeline.cli",
    "beam_score.pipeline.commands",
    "beam_score.pipeline.draft.sample",
    "beam_score.pipeline.draft.yaml_text",
    "beam_score.pipeline.prepare.chain",
    "beam_score.pipeline.process.errors",
    "beam_score.pipeline.run.launch",
    "beam_score.pipeline.show.check",
    "beam_score.pipeline.show.progress",
    "beam_score.pipeline.show.summary",
    "beam_score.pipeline.show.tried",
    "beam_score.runners.fn_api",
    "beam_score.runners.worker.boot",
    "beam_score.runners.worker.processes",
    "apache_beam.typehints.intrinsic_one_ops",
    "apache_beam.typehints.opcodes",
    "grpc._server",
    "grpc._utilities",
    "polars",
    "pyarrow.acero",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.json",
    "pyarrow.orc",
    "pyarrow.parquet",
    "pydantic.type_adapter",
    "rich._emoji_codes",
    "rich.progress",
    "typer._adapters",
    "typer._click.decorators",
    "beam_score.transforms.formats.csv.blocks",
    "beam_score.transforms.formats.csv.typed",
    "beam_score.transforms.formats.csv.reader",
)


@dataclasses.dataclass(frozen=True)
class Ended:
    """The end of a process.

    Attributes:
      code: its exit code; the negative signal number if a signal killed it.
      err, out: what it wrote to standard error and to standard output.
    """

    code: int
    err: str
    out: str

    @property
    def said(self) -> str:
        return self.err + self.out


@dataclasses.dataclass(frozen=True)
class Running:
    """A process started in its own session."""

    pid: int
    log: Path
    server: Forks

    def signal(self, number: int) -> None:
        """Send a signal to the process only, not to its children."""
        os.kill(self.pid, number)

    def kill(self) -> Ended:
        """Kill the process if it is alive, and wait until none of its descendants is running."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def go_on(self) -> None:
        """Resume the stopped processes."""
        _signal_all(self.pid, signal.SIGCONT)

    def lives(self) -> bool:
        return bool(_session(self.pid))

    def wait_stopped(self) -> None:
        """Wait until the process or one of its descendants is stopped."""
        until = time.monotonic() + _TIMEOUT_S
        while "T" not in (states := _session(self.pid).values()):
            assert states and time.monotonic() < until, f"it did not stop, {states}:\n{self.said()}"
            time.sleep(0.002)

    def wait(self, timeout_s: float = _TIMEOUT_S) -> Ended:
        """Wait for the end of the process and of all its descendants."""
        until = time.monotonic() + timeout_s
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                ended, _, _ = select.select([descriptor], [], [], timeout_s)
            finally:
                os.close(descriptor)
            if not ended:
                said = self.said()
                _signal_all(self.pid, signal.SIGKILL)
                raise AssertionError(f"still at work after {timeout_s} s:\n{said}")
        code = self.server.ask(wait=self.pid)["code"]
        while left := _session(self.pid):
            assert time.monotonic() < until, f"something outlives it: {left}"
            time.sleep(0.002)
        return Ended(code, *self._written())

    def said(self) -> str:
        return "".join(self._written())

    def _written(self) -> list[str]:
        return [self.log.with_suffix(suffix).read_text() for suffix in _STREAMS]


class Piped:
    """A process whose output is read from pipes, with the methods of `subprocess.Popen` that tests use.

    Attributes:
      pid: of the process, which leads its own session.
      stdout, stderr: text.
      returncode: None while the process runs; the negative signal number if a signal killed it.
    """

    def __init__(self, server: Forks, folder: Path, arguments: tuple[str, ...], variables: Mapping[str, str]):
        log, opened = folder / "pipe", []
        for suffix in _STREAMS:
            os.mkfifo(log.with_suffix(suffix))
            opened.append(os.open(log.with_suffix(suffix), os.O_RDONLY | os.O_NONBLOCK))
        self.pid = server.start(*arguments, log=log, **variables).pid
        for descriptor in opened:
            os.set_blocking(descriptor, True)
        self.stderr, self.stdout = (os.fdopen(descriptor) for descriptor in opened)
        self.returncode: int | None = None
        self._server, self._ended = server, os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float = _TIMEOUT_S) -> int:
        assert self._wait(timeout) is not None, f"still at work after {timeout} s"
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = _TIMEOUT_S) -> tuple[str, str]:
        with ThreadPoolExecutor() as readers:
            written = [readers.submit(stream.read) for stream in (self.stdout, self.stderr)]
            done = wait(written, timeout).done
            if len(done) < len(written):
                _signal_all(self.pid, signal.SIGKILL)
                raise AssertionError(f"its output is still open after {timeout} s: {[w.result() for w in written]}")
        self.wait(timeout)
        return written[0].result(), written[1].result()

    def _wait(self, timeout_s: float) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout_s)[0]:
            os.close(self._ended)
            self.returncode = self._server.ask(wait=self.pid)["code"]
        return self.returncode


def _session(leader: int) -> dict[int, str]:
    """Return the live processes of a session, with their states."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                state, _, _, session, *_ = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
                if int(session) == leader and state not in "ZX":
                    found[int(name)] = state
    return found


def _signal_all(leader: int, number: int) -> None:
    for pid in _session(leader):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Forks:
    """Client of the fork server.

    Args:
      folder: for the output of the processes.
    """

    def __init__(self, folder: Path):
        self._folder, self._numbers, self._lock = folder, itertools.count(), threading.Lock()
        self._started: list[int] = []
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "kit" / "forks.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(folder / "server.err", "w"),  # noqa: SIM115
            text=True,
            env=environment(TF_CPP_MIN_LOG_LEVEL="3"),
            cwd=ROOT,
            start_new_session=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        assert line, (self._folder / "server.err").read_text()
        return json.loads(line)

    def start(
        self,
        *arguments: str,
        disk: Mapping[str, Any] | None = None,
        cwd: Path = ROOT,
        log: Path | None = None,
        **variables: str,
    ) -> Running:
        """Start `beam-score ARGUMENTS`.

        Args:
          disk: replaces the disk in the process; see `disks.make`.
          cwd: its working folder.
          log: its output: the path without a suffix.
          variables: of its environment, beside those of this process.
        """
        env = environment(**variables)
        return self.start_module("beam_score.pipeline.cli", *arguments, disk=disk, cwd=cwd, log=log, env=env)

    def start_piped(self, *arguments: str, **variables: str) -> Piped:
        """Start `beam-score ARGUMENTS`, its output in pipes."""
        return Piped(self, Path(tempfile.mkdtemp(dir=self._folder)), arguments, variables)

    def start_module(
        self,
        module: str,
        *arguments: str,
        env: Mapping[str, str],
        disk: Mapping[str, Any] | None = None,
        cwd: Path = ROOT,
        log: Path | None = None,
    ) -> Running:
        """Start the `main` of a module as `python -m MODULE ARGUMENTS` would.

        Args:
          env: its whole environment.
          log: its output: the path without a suffix.
        """
        log = log or self._folder / f"run-{next(self._numbers)}"
        for suffix in _STREAMS:
            log.with_suffix(suffix).touch()
        where = {"log": str(log), "cwd": str(cwd), "environment": dict(env)}
        pid = self.ask(module=module, arguments=arguments, disk=disk, **where)["pid"]
        self._started.append(pid)
        return Running(pid, log, self)

    def run(self, *arguments: str, timeout_s: float = _TIMEOUT_S, **how: Any) -> Ended:
        """Run `beam-score ARGUMENTS` to its end; other arguments as for `start`."""
        return self.start(*arguments, **how).wait(timeout_s)

    def close(self) -> None:
        """End the server, and the remaining processes that it started."""
        for pid in self._started:
            _signal_all(pid, signal.SIGKILL)
        self._process.stdin.close()
        self._process.wait(_TIMEOUT_S)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Forks]:
    forks = Forks(folder)
    try:
        yield forks
    finally:
        forks.close()


@functools.cache
def shared() -> Forks:
    """Return the server of this process, which is started by the first call."""
    forks = Forks(Path(tempfile.mkdtemp(prefix="beam-score-forks-")))
    atexit.register(forks.close)
    return forks


def environment(**variables: str) -> dict[str, str]:
    """Return the variables of this process, and those that every process of the tests needs."""
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}/tests:{ROOT}/tests/kit",
        "COLUMNS": "120",
        "NO_COLOR": "1",
        **variables,
    }


# Server side.


def _serve() -> None:
    from beam_score.transforms.formats.base import formats
    from beam_score.transforms.model.native.library import load_library

    began = set(os.environ)
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    load_library()
    for module in _IMPORTED_LATE:
        importlib.import_module(module)
    formats()  # imports the readers
    # Existing objects are never collected, so that the children continue to share the server's pages.
    gc.collect()
    gc.freeze()
    assert threading.active_count() == 1, "a child has but the one thread that forked"
    # Not by iterating over standard input: each child would have a copy of the bytes read ahead.
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "wait" in request:
            status = os.waitpid(request["wait"], 0)[1]
            print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), file=replies)
            continue
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            _write_to(request.pop("log"))
            os.close(tell)
            for name in began - set(request["environment"]):
                del os.environ[name]
            _be_the_module(**request)
        os.close(tell)
        os.read(ready, 1)
        os.close(ready)
        print(json.dumps({"pid": pid}), file=replies)


def _write_to(log: str) -> None:
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, f"{log}.out", os.O_WRONLY | os.O_CREAT),
        (2, f"{log}.err", os.O_WRONLY | os.O_CREAT),
    ):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)


def _be_the_module(
    module: str,
    arguments: list[str],
    cwd: str,
    disk: Mapping[str, Any] | None,
    environment: Mapping[str, str],
) -> None:
    from beam_score.transforms.durable import disk as real

    if disk is not None:
        real.use(disks.make(**disk))
    os.environ.update(environment)
    os.chdir(cwd)
    tempfile.tempdir = None  # TMPDIR may be another
    sys.path[1:1] = [path for path in environment["PYTHONPATH"].split(":") if path not in sys.path]
    sys.argv = ["beam-score", *arguments]
    sys.orig_argv = [sys.executable, "-m", module, *arguments]  # to start anew after a crash
    try:
        sys.modules[module].main()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _serve()
