"""Engines that Beam asks through a job service: the program that serves it, started, asked and ended.

Beam's own classes for this (`apache_beam/runners/portability/job_server.py`, 2.77) set a signal handler, which only
a main thread may, print what they start, and leave it running where the launcher is ended by a signal.
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
    """A job service in a process of its own, in the process group of this one: what ends that, ends it too.

    Args:
      name: for messages.
      command: starts it.
      endpoint: HOST:PORT where it will serve.
      environment: its environment variables.
      folder: for its output; it works there.
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
        """Raises EngineFailed."""
        until = time.monotonic() + _STARTS_WITHIN_S
        with grpc.insecure_channel(self.endpoint) as channel:
            ready = grpc.channel_ready_future(channel)
            while time.monotonic() < until:
                with contextlib.suppress(grpc.FutureTimeoutError):
                    ready.result(timeout=0.1)
                    return
                if self._process.poll() is not None:
                    raise EngineFailed(f"{self.name} ended as it was started: {self._said()}")
        raise EngineFailed(f"{self.name} does not answer at {self.endpoint} after {_STARTS_WITHIN_S} s: {self._said()}")

    def ended(self) -> str | None:
        """A sentence, where it has ended by itself."""
        if self._process.poll() is None:
            return None
        return (
            f"{self.name} ended with exit code {self._process.returncode} before the job did: {self._said()}; {GOES_ON}"
        )

    def end(self) -> None:
        """Ends it; may be called twice, and from another thread."""
        self._process.terminate()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _said(self) -> str:
        """The last of its output: of its own beginnings, never of a row."""
        lines = [line.strip() for line in self._output.read_text(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if not line.startswith(("at ", "... "))]
        return " / ".join(told[-_SHOWN_LINES:]) or "it said nothing"


@contextlib.contextmanager
def own_folder(name: str) -> Iterator[Path]:
    """A folder for temporary files, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"beam-score-{name}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Ended(PipelineResult):
    """What is left of a job when its service is gone: state and counters."""

    def __init__(self, state: str, metrics: Any):
        super().__init__(state)
        self._metrics = metrics

    @property
    def state(self) -> str:
        return self._state

    def metrics(self) -> Any:
        return self._metrics

    def wait_until_finish(self, duration: int | None = None) -> str:
        return self._state


def wait_for(result: PipelineResult, program: Program | None, stopping: threading.Event) -> Ended:
    """Waits until a job has ended.

    Args:
      result: of its submission.
      program: that serves it, where it is ours.
      stopping: set when it should be waited for no longer.

    Raises:
      EngineFailed: the engine, or its service, did.
      RuntimeError: a worker raised; the text holds the traceback.
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
    """What the engine itself says, in a sentence; what a worker raised stays as it is, a traceback's text."""
    text = str(error)
    if not isinstance(error, RuntimeError) or _RAISED in text:
        return error
    causes = [
        line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(("at ", "..."))
    ]
    # The first says that the job failed, the last why.
    why = " / ".join(dict.fromkeys([*causes[:1], *causes[-1:]]))[:_LONGEST]
    return EngineFailed(f"the engine has ended the job: {why}; {GOES_ON}")


def given_names(beam_args: Sequence[str]) -> set[str]:
    """Names of the options that a person gave after `--`, with underscores."""
    return {a.lstrip("-").partition("=")[0].replace("-", "_") for a in beam_args if a.startswith("--")}


def with_ours(beam_args: Sequence[str], ours: Mapping[str, tuple[Any, str | None]]) -> tuple[list[str], list[str]]:
    """Beam's options and ours, as flags: those that a person gave win.

    Args:
      ours: by Beam's name: the value, and the key of the job file where a person has set it, else None.

    Returns:
      (flags, a sentence for each conflict with the job file)
    """
    given = given_names(beam_args)
    # Else Beam runs `pip freeze` for seconds, and stages what it says.
    flags, conflicts = ["--experiments=disable_logging_submission_environment"], []
    for name, (value, key) in ours.items():
        if name not in given:
            flags.append(f"--{name}={value}")
        elif key is not None:
            conflicts.append(f"--{name} after -- wins over {key} of the job file, which is {value}")
    return [*flags, *beam_args], conflicts


def free_port() -> int:
    """A port of this machine that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
