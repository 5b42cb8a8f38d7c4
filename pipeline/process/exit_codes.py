"""The exit codes of all commands; docs/schedulers.md says what a scheduler does about each."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """An exit code of a command."""

    DONE = 0
    FAILED = 1
    WRONG = 2
    """The job file or the command line is wrong."""
    OVER_BUDGET = 3
    STILL_RUNNING = 4
    """Of `status`."""
    NOT_THERE = 5
    """The input does not exist (yet)."""
    CHANGED = 6
    """The input, the model or the job has changed."""
    INTERRUPTED = 130
