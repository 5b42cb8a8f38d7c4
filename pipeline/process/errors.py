"""The message and the exit code of each error."""

from __future__ import annotations

import builtins
import re
import traceback

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.process.exit_codes import ExitCode
from beam_score.pipeline.process.interrupts import TEXT
from beam_score.runners.ended import JobFailed

# By name: importing all the classes takes seconds, and a mistake in a job file would be reported that much later.
_CODES: dict[str, ExitCode] = {
    "beam_score.pipeline.job.mistakes.JobError": ExitCode.WRONG,
    "beam_score.pipeline.run.output_state.Changed": ExitCode.CHANGED,
    "beam_score.pipeline.process.interrupts.Drained": ExitCode.INTERRUPTED,
    "beam_score.runners.ended.EngineFailed": ExitCode.FAILED,
    "beam_score.runners.ended.WorkerDied": ExitCode.FAILED,
    "beam_score.transforms.model.deadline.ModelHangs": ExitCode.FAILED,
    "beam_score.transforms.stores.versions.InputChanged": ExitCode.CHANGED,
    "beam_score.transforms.scoring.halving.EveryRowFails": ExitCode.FAILED,
    "beam_score.transforms.model.loading.ModelChanged": ExitCode.CHANGED,
    "beam_score.transforms.stores.local_file.ReadFails": ExitCode.FAILED,
    "beam_score.transforms.ledger.manifest.Unreadable": ExitCode.FAILED,
    "beam_score.transforms.model.signature.ModelError": ExitCode.WRONG,
    "beam_score.transforms.stores.fetch.StoreFails": ExitCode.FAILED,
    "beam_score.transforms.stores.objects.NoSuchPlace": ExitCode.WRONG,
    "beam_score.transforms.scoring.preprocess.PreprocessError": ExitCode.FAILED,
    "beam_score.transforms.ledger.ended.DeadLettersLost": ExitCode.FAILED,
    "beam_score.transforms.durable.sealed.CorruptFile": ExitCode.FAILED,
    "beam_score.transforms.ledger.verdict.CommitError": ExitCode.FAILED,
    "beam_score.transforms.ledger.publication.Superseded": ExitCode.FAILED,
    "beam_score.transforms.ledger.attempt.LostBlocks": ExitCode.FAILED,
    "beam_score.transforms.rows.reject_count.TooManyRejects": ExitCode.OVER_BUDGET,
    "builtins.OSError": ExitCode.FAILED,
    "builtins.MemoryError": ExitCode.FAILED,
}
_OURS = {name.rpartition(".")[2] for name in _CODES if not name.startswith("builtins.")}
_BY_NAME: dict[str, ExitCode] = (
    {name.rpartition(".")[2]: code for name, code in _CODES.items()}
    | {"ArrowMemoryError": ExitCode.FAILED}
    | {
        name: ExitCode.FAILED
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, OSError)
    }
)
_STEP = re.compile(r" \[while running '[^']*'\]$")
_LAST_LINE = re.compile(r"^(?:[\w.]+\.)?(\w+): (.*?)(?: \[while running '([^']*)'\])?$", re.MULTILINE)

_QUOTED = re.compile(r"""^(['"])(.*)\1$""")  # a KeyError's text


def explain(error: Exception) -> tuple[ExitCode, list[str]]:
    """Return the exit code and the messages of an error. Unexpected errors include a traceback, for a bug report."""
    if isinstance(error, JobError):
        return _of_job_error(error), error.problems
    for kind in type(error).__mro__:
        code = _CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            return code, _sentences(error)
    if str(error).rstrip().endswith("KeyboardInterrupt"):
        return ExitCode.INTERRUPTED, [TEXT]  # the signal reached a worker first
    # Beam's worker threads and remote jobs report an exception as the text of its traceback.
    for name, message, step in reversed(_LAST_LINE.findall(str(error))):
        if name in _BY_NAME:
            where = f" (in step {step})" if step and name not in _OURS else ""
            said = [_QUOTED.sub(r"\2", message) + where]
            return _BY_NAME[name], [error.text, *said] if isinstance(error, JobFailed) else said
    if isinstance(error, JobFailed):
        return ExitCode.FAILED, [error.text, *dict.fromkeys(error.reasons)]
    lines = [line for line in "".join(traceback.format_exception(error)).splitlines() if line.strip()]
    return ExitCode.FAILED, ["unexpected error; please report it:", *lines]


def _of_job_error(error: JobError) -> ExitCode:
    """Return the exit code of a job error. Missing input alone gets a code of its own, so that a scheduler retries."""
    if _CODES.get(f"{type(error).__module__}.{type(error).__qualname__}") == ExitCode.CHANGED:
        return ExitCode.CHANGED
    from beam_score.transforms.listing.files import NotThere

    is_missing = error.problems and all(isinstance(problem, NotThere) for problem in error.problems)
    return ExitCode.NOT_THERE if is_missing else ExitCode.WRONG


def _sentences(error: Exception) -> list[str]:
    if isinstance(error, OSError) and error.filename is not None:
        return [f"{error.filename}: {error.strerror}"]
    return _STEP.sub("", str(error)).strip("\n").split("\n") if str(error) else [type(error).__name__]
