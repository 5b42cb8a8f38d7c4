"""What it means that a process, or a job elsewhere, has ended. Light: the process that watches imports it."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from beam_score.runners.settings.machine_memory import machine_bytes
from beam_score.transforms.model.in_hand import MODEL, Rows

GOES_ON = "what is done stays done, and the same command goes on from here"


class WorkerDied(RuntimeError):
    """A worker process has ended before its work was done."""


class EngineFailed(RuntimeError):
    """An engine has not come up, is gone, or has ended the job for a reason of its own."""


class JobFailed(RuntimeError):
    """A job on another machine has not come to a good end.

    Attributes:
      reasons: what the engine says of it, with the text of what a worker raised.
    """

    def __init__(self, text: str, reasons: Sequence[str] = ()):
        super().__init__("\n".join([text, *reasons]))
        self.text, self.reasons = text, list(reasons)


class GoesOnElsewhere(Exception):
    """All that was asked for is done, and there is no outcome yet: nobody waits for it here."""


CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
_SHOWN = 8


def told(who: str, number: int, in_hand: Sequence[Rows]) -> str:
    """A sentence on a process that a signal has ended.

    Args:
      who: the process.
      number: of the signal.
      in_hand: what the model, and the readers, were working on, and which models were loaded.
    """
    models, in_hand = models_and_rows(in_hand)
    model = f"the model {', '.join(models)}" if models else "the model"
    files = [rows for rows in in_hand if rows.is_file]
    in_hand = [rows for rows in in_hand if not rows.is_file]
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    if number in CRASHES and files and not in_hand:
        return (
            f"{who} was ended by {name}, most likely by a damaged file, while it read {', '.join(map(str, files))}: "
            f"move away the one that is at fault, and report it; {GOES_ON}"
        )
    if number in CRASHES:
        return (
            f"{who} was ended by {name}, most likely in {model} or in a library{_with(in_hand)}: try the model "
            f"on these rows alone, or another version of it; {GOES_ON}"
        )
    if number == signal.SIGKILL:
        return (
            f"{who} was ended by {name}: most likely it was out of memory (this machine has "
            f"{machine_bytes() / 1e9:.1f} GB), or someone killed it{_with(in_hand)}: lower engine.memory, "
            f"engine.workers or model.batch_rows, or take a larger machine; {GOES_ON}"
        )
    return f"{who} was ended by {name}, from outside or by itself{_with(in_hand)}; {GOES_ON}"


def models_and_rows(in_hand: Sequence[Rows]) -> tuple[list[str], list[Rows]]:
    """The paths of the models that are noted, each once; and the rows."""
    models = dict.fromkeys(note.first_source for note in in_hand if note.count == MODEL)
    return list(models), [note for note in in_hand if note.count != MODEL]


def _with(in_hand: Sequence[Rows]) -> str:
    if not in_hand:
        return ", with no rows in the model's hands"
    more = f" and {len(in_hand) - _SHOWN} more" if len(in_hand) > _SHOWN else ""
    return f", with these rows in the model's hands: {', '.join(map(str, in_hand[:_SHOWN]))}{more}"
