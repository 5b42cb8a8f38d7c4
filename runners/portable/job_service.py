"""The process of a Beam job service, and waiting for a job that was submitted to it.

Beam's own classes for this (`apache_beam/runners/portability/job_server.py`, 2.77) set a signal handler, which only the
main thread may do, print the command line, and leave the process running if the launcher is ended by a signal.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from apache_beam.runners.runner import PipelineResult, PipelineState

from beam_score.runners.ended import GOES_ON, EngineFailed
from beam_score.runners.worker.quiet import keep_quiet

_STARTS_WITHIN_S = 120
_ENDS_WITHIN_S = 5
_SHOWN_LINES = 3
_LONGEST = 1000
_RAISED = "Traceback (most recent call last)"


class Program:
    """A job service in a child process in this process group, so that it ends when the group is killed.

    Args:
      name: for messages.
      command: the command line of the child process.
      endpoint: HOST:PORT of the job service.
      environment: environment variables of the child process.
      folder: for its output; also its working directory.
    """

    def __init__(self, name: str, command: Sequence[str], endpoint: str, environment: Mapping[str, str], folder: Path):
        self.name, self.endpoint = name, endpoint
        self._output = folder / "output.txt"
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
            )

    def wait_until_ready(self) -> None:
        """Wait until the job service answers. Raises EngineFailed."""
        until = time.monotonic() + _STARTS_WITHIN_S
        with grpc.insecure_channel(self.endpoint) as channel:
            ready = grpc.channel_ready_future(channel)
            while time.monotonic() < until:
                with contextlib.suppress(grpc.FutureTimeoutError):
                    ready.result(timeout=0.1)
                    return
                if self._process.poll() is not None:
                    raise EngineFailed(f"{self.name} ended during start-up: {self._said()}")
        raise EngineFailed(f"{self.name} does not answer at {self.endpoint} after {_STARTS_WITHIN_S} s: {self._said()}")

    def ended(self) -> str | None:
        """Return a message if the process has ended by itself."""
        if self._process.poll() is None:
            return None
        return (
            f"{self.name} ended with exit code {self._process.returncode} before the job did: {self._said()}; {GOES_ON}"
        )

    def end(self) -> None:
        """End the process; may be called twice, and from another thread."""
        self._process.terminate()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _said(self) -> str:
        """Return the last lines of the process's output, which never contains rows."""
        lines = [line.strip() for line in self._output.read_text(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if not line.startswith(("at ", "... "))]
        return " / ".join(told[-_SHOWN_LINES:]) or "it printed nothing"


@contextlib.contextmanager
def own_folder(name: str) -> Iterator[Path]:
    """Create a temporary folder for the body, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"beam-score-{name}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Ended(PipelineResult):
    """The result of an ended job, without its job service: state and counters."""

    def __init__(self, state: str, metrics: Any):
        super().__init__(state)  # type: ignore[no-untyped-call]  # Beam's
        self._metrics = metrics

    @property
    def state(self) -> str:
        return self._state

    def metrics(self) -> Any:
        return self._metrics

    def wait_until_finish(self, duration: int | None = None) -> str:
        return self._state


def wait_for(result: PipelineResult, program: Program | None, stopping: threading.Event) -> Ended:
    """Wait until a job has ended.

    Args:
      result: of the job's submission.
      program: the job service, if this process started it.
      stopping: set to end the wait.

    Raises:
      EngineFailed: the engine or its job service failed, or `stopping` was set.
      RuntimeError: a worker raised; the text contains the traceback.
    """
    keep_quiet()
    outcome: list[BaseException | None] = []

    def wait() -> None:
        try:
            result.wait_until_finish()
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    waiting = threading.Thread(target=wait, name="job", daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(0.1)
        if stopping.is_set():
            raise EngineFailed("the job was stopped")
        if program is not None and waiting.is_alive() and (told := program.ended()):
            raise EngineFailed(told)
    if outcome[0] is not None:
        raise _explained(outcome[0])
    return Ended(PipelineState.DONE, result.metrics())


def _explained(error: BaseException) -> BaseException:
    """Return the engine's own error as one message. An error with a worker's traceback is returned unchanged."""
    text = str(error)
    if not isinstance(error, RuntimeError) or _RAISED in text:
        return error
    causes = [
        line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(("at ", "..."))
    ]
    # The first cause says that the job failed, the last says why.
    why = " / ".join(dict.fromkeys([*causes[:1], *causes[-1:]]))[:_LONGEST]
    return EngineFailed(f"the engine ended the job: {why}; {GOES_ON}")


def given_names(beam_args: Sequence[str]) -> set[str]:
    """Return the names of the options that the user gave after `--`, with underscores."""
    return {a.lstrip("-").partition("=")[0].replace("-", "_") for a in beam_args if a.startswith("--")}


def with_ours(beam_args: Sequence[str], ours: Mapping[str, tuple[Any, str | None]]) -> tuple[list[str], list[str]]:
    """Return Beam options as flags, those of the user and those of the job file; the user's take precedence.

    Args:
      ours: by Beam's name: the value, and the key of the job file if it is set there, else None.

    Returns:
      the flags, and a message for each conflict with the job file.
    """
    given = given_names(beam_args)
    # Otherwise Beam runs `pip freeze` for seconds, and stages its output.
    flags, conflicts = ["--experiments=disable_logging_submission_environment"], []
    for name, (value, key) in ours.items():
        if name not in given:
            flags.append(f"--{name}={value}")
        elif key is not None:
            conflicts.append(f"--{name} after -- overrides {key} of the job file, which is {value}")
    return [*flags, *beam_args], conflicts


def free_port() -> int:
    """Return a port of this machine that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
