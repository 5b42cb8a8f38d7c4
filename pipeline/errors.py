"""What a person is told of an error, and with which exit code."""

from __future__ import annotations

import re
import traceback

from pipeline.job import JobError
from transforms.commit import CommitError
from transforms.halving import EveryRowFails
from transforms.model import ModelError
from transforms.preprocess import PreprocessError
from transforms.write import LostBlocks, TooManyRejects

FAILED, WRONG, OVER = 1, 2, 3

_CODES: dict[type[Exception], int] = {
    JobError: WRONG,
    ModelError: WRONG,
    PreprocessError: FAILED,
    EveryRowFails: FAILED,
    LostBlocks: FAILED,
    CommitError: FAILED,
    TooManyRejects: OVER,
    OSError: FAILED,
    MemoryError: FAILED,
}
_BY_NAME = {kind.__name__: code for kind, code in _CODES.items()}
_LAST_LINE = re.compile(r"^(?:[\w.]+\.)?(\w+): (.*?)(?: \[while running '([^']*)'\])?$", re.MULTILINE)


def explain(error: Exception) -> tuple[int, list[str]] | None:
    """(exit code, sentences) for an error that a person can do something about; else None."""
    if isinstance(error, JobError):
        return WRONG, error.problems
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code, str(error).splitlines() or [kind.__name__]
    # Beam's worker threads hand an exception over as the text of its traceback.
    for name, message, step in reversed(_LAST_LINE.findall(str(error) or "".join(traceback.format_exception(error)))):
        os_error = getattr(__import__("builtins"), name, None)
        is_os_error = isinstance(os_error, type) and issubclass(os_error, OSError)
        if name in _BY_NAME or is_os_error:
            where = f" (in step {step})" if step and is_os_error else ""
            return _BY_NAME.get(name, FAILED), [message + where]
    return None
