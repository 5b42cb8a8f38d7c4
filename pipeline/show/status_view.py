"""The status of a run as a table, a log line or JSON."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.live import Live
from rich.table import Table

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.printing.terminal import Console, escape, printable, put
from beam_score.pipeline.process.exit_codes import ExitCode
from beam_score.pipeline.run.status import RunState, Status, Watcher
from beam_score.runners.elsewhere import Found
from beam_score.transforms.stores.objects import NoSuchPlace, ObjectPath, is_object
from beam_score.transforms.stores.registry import check_bucket

_CODES = {
    RunState.DONE: ExitCode.DONE,
    RunState.OVER_BUDGET: ExitCode.OVER_BUDGET,
    RunState.STARTING: ExitCode.STILL_RUNNING,
    RunState.RUNNING: ExitCode.STILL_RUNNING,
    RunState.PUBLISHING: ExitCode.STILL_RUNNING,
}
_STYLES = {RunState.DONE: "bold green", RunState.OVER_BUDGET: "bold red", RunState.INTERRUPTED: "bold yellow"}
_MEANS = {
    RunState.NOTHING: "no run has started or was published here",
    RunState.STARTING: "a launch is starting: it checks the job, loads the model and plans",
    RunState.PLANNED: "no split is done, and no launch is running: the job's command continues this run",
    RunState.INTERRUPTED: "no launch is running: the job's command continues from here",
    RunState.OVER_BUDGET: "with a higher rejects.budget or rejects.files the job's command publishes this run",
}
_LOOKS_EVERY_S = 1.0
_SAYS_EVERY_S = 10.0
_NAMED = 3


def exit_code(status: Status) -> int:
    """Return the exit code: 0 done, 3 over budget, 4 starting, running or publishing, 1 otherwise."""
    return _CODES.get(status.state, ExitCode.FAILED)


def show_status(output: str, console: Console, watch: bool, as_json: bool) -> int:
    """Print the status of an output folder, once or until its run ends. Return the exit code.

    Raises:
      JobError: if the folder does not exist, or cannot be accessed.
    """
    _check_there(output)
    looks = until_over(Watcher(output), time.sleep) if watch else iter([Watcher(output).look()])
    if not watch:
        status = next(looks)
        if as_json:
            put(json.dumps(as_dict(status), indent=1))
        else:
            console.print(as_table(status, time.time()))
    elif console.is_terminal and not as_json:
        with Live(console=console, auto_refresh=False) as live:
            for status in looks:
                live.update(as_table(status, time.time()), refresh=True)
    else:
        status = _say_now_and_then(looks, (lambda s: json.dumps(as_dict(s))) if as_json else as_line)
    return exit_code(status)


def look(output: str) -> Status:
    """Return the status of an output folder. Raises JobError if the folder does not exist, or cannot be accessed."""
    _check_there(output)
    return Watcher(output).look()


def _check_there(output: str) -> None:
    if is_object(output):
        try:
            check_bucket(ObjectPath.parse(output))
        except (FileNotFoundError, PermissionError) as error:
            raise JobError([f"{error.filename}: {error.strerror}"]) from error
        except NoSuchPlace as error:
            raise JobError([str(error)]) from error
    elif not Path(output).is_dir():
        what = "is a file" if Path(output).exists() else "does not exist"
        raise JobError([f"{output} {what}, expected the output folder of a job (output.path of the job file)"])


def until_over(watcher: Watcher, sleep: Callable[[float], None]) -> Iterator[Status]:
    """Yield the status repeatedly, until the run is done, is over budget, or no launch works on it."""
    before = None
    while True:
        status = watcher.look()
        yield status
        # Only after two equal states: a launch counts as running a moment after it has planned.
        if status.state in (RunState.DONE, RunState.OVER_BUDGET) or (
            exit_code(status) != ExitCode.STILL_RUNNING and status == before
        ):
            return
        before = status
        sleep(_LOOKS_EVERY_S)


def _say_now_and_then(looks: Iterator[Status], text: Callable[[Status], str]) -> Status:
    """Print a line at once, at each change of state, every ten seconds, and at the end. Return the last status."""
    said = last = None
    due = 0.0
    for last in looks:
        if said is None or last.state != said.state or (last != said and time.monotonic() >= due):
            put(text(last), flush=True)
            said, due = last, time.monotonic() + _SAYS_EVERY_S
    assert last is not None  # there is at least one look
    if last != said:
        put(text(last), flush=True)
    return last


def as_dict(status: Status) -> dict[str, Any]:
    """Return the fields of `--json`, which docs/status.md explains."""
    at = status.last_receipt
    return {
        "output": status.output,
        "state": status.state,
        "run": status.run,
        "published": status.published,
        "splits": {"done": status.splits_done, "all": status.splits},
        "bytes": {"done": status.bytes_done, "all": status.bytes},
        "counts": dict(status.counts),
        "rows_per_s": None if status.rows_per_s is None else round(status.rows_per_s),
        "seconds_left": None if status.seconds_left is None else round(status.seconds_left, 1),
        "last_receipt": None
        if at is None
        else f"{datetime.datetime.fromtimestamp(at, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "damaged_receipts": list(status.damaged),
        "jobs": [
            {
                "runner": found.job.runner,
                "name": found.job.name,
                **found.job.place,
                "id": found.id,
                "state": found.state,
                "why_not_known": found.why or None,
            }
            for found in status.jobs
        ],
    }


def as_line(status: Status) -> str:
    """Return the status as one line for a log."""
    if status.run is None:
        return f"{printable(status.output)}: {_MEANS[status.state]}"
    said = [f"{status.run} {status.state}"]
    if status.splits is not None:
        said.append(f"{status.splits_done:,} of {status.splits:,} splits")
    said += [f"{status.counts['read']:,} rows", f"{status.counts['rejected']:,} rejected"]
    if status.rows_per_s is not None:
        said.append(f"{status.rows_per_s:,.0f} rows/s")
    if status.state == RunState.RUNNING:
        said.append(f"{time_left(status)} left")
    said += [f"no launch is running, {printable(found)}" for found in status.jobs]
    return ", ".join(said)


def as_table(status: Status, now: float) -> Table:
    """Return the whole status as a table for a terminal.

    Args:
      now: seconds since the epoch.
    """
    table, counts = fact_table(), status.counts
    style = _STYLES.get(status.state, "bold")
    table.add_row("state", f"[{style}]{status.state}[/]", _MEANS.get(status.state, ""))
    if status.run is None:
        return table
    table.add_row("run", "", escape(status.run))
    for found in status.jobs:
        table.add_row("job", "", escape(_of_job(found)))
    if status.published not in (None, status.run):
        table.add_row("", "", f"replaces {escape(status.published)}, which stays published until this run is done")
    if status.splits is not None and status.bytes_done is not None and status.bytes is not None:
        table.add_row("splits done", f"{status.splits_done:,}", f"of {status.splits:,}")
        share = f", {status.bytes_done / status.bytes:.0%}" if status.bytes else ""
        table.add_row("MB done", f"{status.bytes_done / 1e6:,.1f}", f"of {status.bytes / 1e6:,.1f}{share}")
    add_counts(table, counts)
    for reason, rows in sorted(counts["rejected_by_reason"].items(), key=lambda r: -r[1]):
        table.add_row(f"  {escape(reason)}", f"{rows:,}", "")
    if counts["stretches"]:
        table.add_row("cannot be read", f"{counts['stretches']:,}", "files or parts of files")
    if status.rows_per_s is not None:
        table.add_row("rows/s", f"{status.rows_per_s:,.0f}", "")
    if status.state == RunState.RUNNING:
        table.add_row("time left", time_left(status), "")
    if status.last_receipt is not None:
        table.add_row("last receipt", f"{duration(now - status.last_receipt)} ago", "")
    if status.damaged:
        more = f" and {len(status.damaged) - _NAMED:,} more" if len(status.damaged) > _NAMED else ""
        shown = escape(", ".join(status.damaged[:_NAMED]))
        table.add_row("damaged", f"{len(status.damaged):,}", f"receipts, counted as not done: {shown}{more}")
    return table


def fact_table() -> Table:
    """Return an empty table of facts: name, number, text."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    return table


def add_counts(table: Table, counts: Mapping[str, Any]) -> None:
    """Add the rows read, predicted and rejected to a table of facts."""
    rejected, share = counts["rejected"], f"{counts['rejected'] / counts['read']:.2%}" if counts["read"] else ""
    table.add_row("rows read", f"{counts['read']:,}", "")
    table.add_row("predicted", f"{counts['predicted']:,}", "")
    table.add_row("rejected", f"{rejected:,}", share)


def _of_job(found: Found) -> str:
    if found.alive:
        return (
            f"the launcher has ended; {found}. The job publishes its result itself; the job's command waits for it. To "
            f"cancel it: {found.cancel}"
        )
    return f"the launcher has ended; {found}"


def time_left(status: Status) -> str:
    return "unknown" if status.seconds_left is None else duration(status.seconds_left)


def duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds; negative values (the clock was set back) as 0 s."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
