"""Describe how a process or a remote job has ended. The supervising process imports this: keep its imports small."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from beam_score.runners.settings.machine_memory import machine_bytes
from beam_score.transforms.model.in_flight import MODEL, Rows

GOES_ON = "finished splits are kept, and the same command continues from here"


class WorkerDied(RuntimeError):
    """A worker process has ended before it had finished its work."""


class EngineFailed(RuntimeError):
    """An engine did not start, is gone, or has ended the job for reasons of its own."""


class JobFailed(RuntimeError):
    """A job on another machine has failed or was cancelled.

    Attributes:
      text: how the job ended.
      reasons: the engine's messages, with the text of what a worker raised.
    """

    def __init__(self, text: str, reasons: Sequence[str] = ()):
        super().__init__("\n".join([text, *reasons]))
        self.text, self.reasons = text, list(reasons)


class GoesOnElsewhere(Exception):
    """The job was submitted and runs without this process, which does not wait for its outcome."""


CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
_SHOWN = 8


def told(who: str, number: int, in_flight: Sequence[Rows]) -> str:
    """Return a message about a process that was ended by a signal.

    Args:
      who: the process.
      number: of the signal.
      in_flight: the rows in model calls, the files being read, and the models loaded.
    """
    models, in_flight = models_and_rows(in_flight)
    model = f"the model {', '.join(models)}" if models else "the model"
    files = [rows for rows in in_flight if rows.is_file]
    in_flight = [rows for rows in in_flight if not rows.is_file]
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    if number in CRASHES and files and not in_flight:
        return (
            f"{who} was ended by {name}, most likely by a damaged file, while it read {', '.join(map(str, files))}: "
            f"remove the damaged file from the input, and report it; {GOES_ON}"
        )
    if number in CRASHES:
        return (
            f"{who} was ended by {name}, most likely in {model} or in a library{_with(in_flight)}: try the model "
            f"on these rows alone, or another version of the model; {GOES_ON}"
        )
    if number == signal.SIGKILL:
        return (
            f"{who} was ended by {name}: most likely it was out of memory (this machine has "
            f"{machine_bytes() / 1e9:.1f} GB), or it was killed from outside{_with(in_flight)}: lower engine.memory, "
            f"engine.workers or model.batch_rows, or use a larger machine; {GOES_ON}"
        )
    return f"{who} was ended by {name}, sent from outside or by itself{_with(in_flight)}; {GOES_ON}"


def models_and_rows(in_flight: Sequence[Rows]) -> tuple[list[str], list[Rows]]:
    """Return the paths of the loaded models, each once, and the other notes."""
    models = dict.fromkeys(note.first_source for note in in_flight if note.count == MODEL)
    return list(models), [note for note in in_flight if note.count != MODEL]


def _with(in_flight: Sequence[Rows]) -> str:
    if not in_flight:
        return ", with no rows in a model call"
    more = f" and {len(in_flight) - _SHOWN} more" if len(in_flight) > _SHOWN else ""
    return f", with these rows in a model call: {', '.join(map(str, in_flight[:_SHOWN]))}{more}"
