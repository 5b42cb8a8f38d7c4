"""What a person is told of an error, and with which exit code."""

from __future__ import annotations

import builtins
import re
import traceback

from pipeline.interrupts import Drained
from pipeline.mistakes import JobError
from pipeline.standing import Changed
from runners.ended import EngineFailed, JobFailed, WorkerDied
from transforms.deadline import ModelHangs
from transforms.file_versions import InputChanged
from transforms.files import NotThere
from transforms.halving import EveryRowFails
from transforms.loading import ModelChanged
from transforms.local_files import ReadFails
from transforms.manifest import Unreadable
from transforms.model import ModelError
from transforms.object_fetch import StoreFails
from transforms.objects import NoSuchPlace
from transforms.preprocess import PreprocessError
from transforms.read_dead_letters import LettersLost
from transforms.reject_count import TooManyRejects
from transforms.sealed import Damaged
from transforms.verdict import CommitError, Overtaken
from transforms.write import LostBlocks

FAILED, WRONG, OVER, NOT_THERE, CHANGED, INTERRUPTED = 1, 2, 3, 5, 6, 130
"""Exit codes; 4 is of `status`, which says that a run is still going on."""

INTERRUPTED_TEXT = "interrupted; the same command goes on from here"

_CODES: dict[type[Exception], int] = {
    JobError: WRONG,
    ModelError: WRONG,
    NoSuchPlace: WRONG,
    PreprocessError: FAILED,
    EveryRowFails: FAILED,
    LostBlocks: FAILED,
    CommitError: FAILED,
    Overtaken: FAILED,
    Damaged: FAILED,
    Unreadable: FAILED,
    InputChanged: CHANGED,
    LettersLost: FAILED,
    StoreFails: FAILED,
    ReadFails: FAILED,
    TooManyRejects: OVER,
    ModelHangs: FAILED,
    ModelChanged: CHANGED,
    WorkerDied: FAILED,
    EngineFailed: FAILED,
    Drained: INTERRUPTED,
    OSError: FAILED,
    MemoryError: FAILED,
}
_OURS = {kind.__name__ for kind in _CODES if kind.__module__ != "builtins"}
_BY_NAME = (
    {kind.__name__: code for kind, code in _CODES.items()}
    | {"ArrowMemoryError": FAILED}
    | {name: FAILED for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, OSError)}
)
_STEP = re.compile(r" \[while running '[^']*'\]$")
_LAST_LINE = re.compile(r"^(?:[\w.]+\.)?(\w+): (.*?)(?: \[while running '([^']*)'\])?$", re.MULTILINE)

_QUOTED = re.compile(r"""^(['"])(.*)\1$""")  # a KeyError's text


def explain(error: Exception) -> tuple[int, list[str]]:
    """(exit code, sentences) for an error. One that is no one's but the program's is told with where it was
    raised, to be reported."""
    if isinstance(error, JobError):
        return _of_job_error(error), error.problems
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code, _sentences(error)
    if str(error).rstrip().endswith("KeyboardInterrupt"):
        return INTERRUPTED, [INTERRUPTED_TEXT]  # it reached a worker first
    # Beam's worker threads hand an exception over as the text of its traceback; so does a job elsewhere.
    for name, message, step in reversed(_LAST_LINE.findall(str(error))):
        if name in _BY_NAME:
            where = f" (in step {step})" if step and name not in _OURS else ""
            said = [_QUOTED.sub(r"\2", message) + where]
            return _BY_NAME[name], [error.text, *said] if isinstance(error, JobFailed) else said
    if isinstance(error, JobFailed):
        return FAILED, [error.text, *dict.fromkeys(error.reasons)]
    lines = [line for line in "".join(traceback.format_exception(error)).splitlines() if line.strip()]
    return FAILED, ["this should not have happened; please report it:", *lines]


def _of_job_error(error: JobError) -> int:
    """An input that is late is not a mistake, unless there is one beside it: a scheduler tries it again."""
    if isinstance(error, Changed):
        return CHANGED
    return NOT_THERE if error.problems and all(isinstance(p, NotThere) for p in error.problems) else WRONG


def _sentences(error: Exception) -> list[str]:
    if isinstance(error, OSError) and error.filename is not None:
        return [f"{error.filename}: {error.strerror}"]
    return _STEP.sub("", str(error)).splitlines() or [type(error).__name__]
