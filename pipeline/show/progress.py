"""Progress of a run, shown by the command that runs it, with the same figures as `beam-score status`."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from beam_score.pipeline.run.status import RunState, Status
from beam_score.pipeline.run.watch import Show
from beam_score.pipeline.show.status_view import as_line, time_left

if TYPE_CHECKING:
    from beam_score.pipeline.printing.terminal import Console

log = logging.getLogger(__name__)


_LOG_EVERY_S = 30


@contextlib.contextmanager
def shown() -> Iterator[Show]:
    """Yield a function that shows progress: a live bar on a terminal, otherwise log lines."""
    from beam_score.pipeline.printing.terminal import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as show:
            yield show
    else:
        yield log_now_and_then(time.monotonic, log.info)


def log_now_and_then(now: Callable[[], float], say: Callable[..., None]) -> Show:
    """Return a function that shows progress as a log line every 30 seconds.

    Args:
      now: returns seconds.
      say: takes a format and its values, as `logging.info` does.
    """
    last = now()

    def show(status: Status) -> None:
        nonlocal last
        if (moment := now()) - last >= _LOG_EVERY_S:
            last = moment
            say("%s", as_line(status))

    return show


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[Show]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[known]}"), TimeElapsedColumn())
    # rich shall not capture output of others, which is redirected already (see `pipeline.printing.printed`).
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        task = progress.add_task("starting", total=None, known="")

        def show(status: Status) -> None:
            if status.splits is None:
                return
            speed = "" if status.rows_per_s is None else f"  {status.rows_per_s:,.0f} rows/s"
            known = f"{status.splits_done:,}/{status.splits:,} splits  {status.counts['read']:,} rows{speed}"
            left = f"  {time_left(status)} left" if status.state == RunState.RUNNING else ""
            progress.update(
                task,
                description="scoring",
                total=max(status.splits, 1),
                completed=status.splits_done,
                known=known + left,
            )

        yield show
