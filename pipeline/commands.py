"""The commands as functions, for programs: the command line is a thin caller of these."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from beam_score.pipeline.job.job import Job, load_job, parse_job, set_key
from beam_score.pipeline.run.launching import Launching
from beam_score.pipeline.run.options import LaunchOptions, refuse_unknown

if TYPE_CHECKING:  # what a command needs is imported when it is called
    from beam_score.pipeline.prepare.row_sources import FromDeadLetters
    from beam_score.pipeline.run.protocol import Outcome
    from beam_score.pipeline.run.status import Status
    from beam_score.pipeline.show.check import Checked

JobSource = str | os.PathLike[str] | Mapping[str, Any] | Job
"""The path of a job file, its content as plain data, or the parsed job."""


def run(job: JobSource, *, overrides: Sequence[str] = (), **options: Unpack[LaunchOptions]) -> Outcome:
    """Run a job to its verdict, as `beam-score run` does.

    Args:
      job: the path of the job file, or its content as a mapping.
      overrides: `KEY=VALUE`, with a dotted key and the value as YAML: `rejects.budget=5%`.
      beam_options: Beam's own options.
      restart: whether to discard a run that has begun and is not finished.
      replace: whether to publish over a finished run.
      keep_replaced: whether to keep the files of a replaced run until the next launch.
      replace_if_changed: whether to replace a run of another version of this job, finished or not.
      show_progress: called with the status of the run several times a second, in a thread of its own.

    Returns:
      what was published; `code` is 3 if the run is over its error budget and nothing was published.

    Raises:
      JobError: nothing was launched. `problems` has a sentence for each reason.
      GoesOnElsewhere: the job was submitted to an engine that was not to be waited for.
      Exception: the run did not come to a verdict. Finished splits are kept: the same call continues it.
    """
    return launch(job_of(job, overrides), None, options)


def check(job: JobSource, *, overrides: Sequence[str] = (), beam_options: Sequence[str] = ()) -> Checked:
    """Check a job and score its first rows, as `beam-score check` does. Nothing is written.

    Args: see `run`.

    Returns:
      the predictions and dead letters of the first rows, and whether the job is ready.

    Raises:
      JobError: with every problem that would prevent a launch.
    """
    from beam_score.pipeline.printing.terminal import Console
    from beam_score.pipeline.show.check import check_job

    return check_job(job_of(job, overrides), Console(quiet=True), beam_options)


def status(output: str | os.PathLike[str]) -> Status:
    """Return the state of the run in an output folder, as `beam-score status` shows it. Nothing is changed there.

    Raises:
      JobError: the folder does not exist, or cannot be read.
    """
    from beam_score.pipeline.show.status_view import look

    return look(os.fspath(output))


def replay(
    output: str | os.PathLike[str],
    *,
    overrides: Sequence[str] = (),
    to: str | None = None,
    rows_from: str = "auto",
    trust: bool = False,
    **options: Unpack[LaunchOptions],
) -> Outcome:
    """Score the dead letters of a finished run again, as `beam-score replay` does.

    Args:
      output: the output folder of the run.
      overrides: changes to its job, which should let the rows pass.
      to: the output folder of the replay; None for that of the run with `-replay` added to its name.
      rows_from: `payload`, `source` or `auto`: whether rows are read from the dead letters or from their files.
      trust: whether to run a model and a function that another user's record names.
      The others: see `run`.

    Raises:
      CommitError: the rows of run and replay do not add up. What was published stays.
      Otherwise see `run`.
    """
    from beam_score.pipeline.prepare.replay import accounting, load_replay

    job, parent = load_replay(os.fspath(output), overrides, to, rows_from, trust)
    outcome = launch(job, parent, options)
    accounting(parent, outcome.manifest)
    return outcome


def launch(job: Job, parent: FromDeadLetters | None, options: LaunchOptions) -> Outcome:
    """Launch a job, visible to `beam-score status` from its first moment; see `run`.

    Args:
      parent: for a replay, the run whose dead letters are the input.
    """
    refuse_unknown(options)
    with Launching(job.output.path) as launching:
        from beam_score.pipeline.run.launch import run as run_to_verdict

        return run_to_verdict(job, parent=parent, on_planned=launching.end, **options)


def job_of(job: JobSource, overrides: Sequence[str] = ()) -> Job:
    """Return a job, from its file or from plain data; one that is parsed already as it is. Raises JobError."""
    if isinstance(job, Job):
        return job
    if not isinstance(job, Mapping):
        return load_job(os.fspath(job), overrides)
    settings = dict(job)
    for override in overrides:
        set_key(settings, override)
    return parse_job(settings)
