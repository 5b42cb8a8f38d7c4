"""Report on the rows that `check` tried: the error budget, the reasons for rejection, and settings that help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.table import Table

from beam_score.pipeline.draft.remedies import remedies
from beam_score.pipeline.draft.sample import look_at_files
from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.preflight import Prepared
from beam_score.pipeline.prepare.trial import Trial
from beam_score.pipeline.printing.terminal import Console, escape
from beam_score.transforms.formats.first_rows import Hints
from beam_score.transforms.ledger.receipt import Counts
from beam_score.transforms.rows.faults import known_rows

_SHOWN_GROUPS = 12
_SHOWN_FIELDS = 40


@dataclass
class Group:
    """Rows rejected for one reason, in one column.

    Attributes:
      reason: the reason code.
      column: None if the reason does not concern one column.
      rows: number of rows.
      row, message: of the first row.
    """

    reason: str
    column: str | None
    rows: int
    row: int
    message: str


def groups_of(rejected: pa.RecordBatch) -> list[Group]:
    """Group dead letters by reason and column, the most frequent first."""
    found: dict[tuple[str, str | None], Group] = {}
    for letter in rejected.select(["row", "rows", "reason", "column", "message"]).to_pylist():
        key = letter["reason"], letter["column"]
        group = found.setdefault(key, Group(*key, 0, letter["row"], letter["message"]))
        group.rows += letter["rows"] or 1
    return sorted(found.values(), key=lambda g: -g.rows)


def over_budget(job: Job, trial: Trial) -> list[str]:
    """Return a message for each part of the error budget that the tried rows exceed."""
    rejected = known_rows(trial.rejected)
    counts = Counts(trial.rows, trial.predictions.num_rows, rejected, trial.rejected["rows"].null_count)
    return job.rejects.as_budget().broken(counts)


def print_groups(console: Console, groups: Sequence[Group]) -> None:
    """Print the number of rejected rows by reason and column, with an example each."""
    table = Table(title="rejected", title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("rows", justify="right")
    for name in ("reason", "column", "first"):
        table.add_column(name, overflow="fold")
    for g in groups[:_SHOWN_GROUPS]:
        table.add_row(f"{g.rows:,}", g.reason, escape(g.column or ""), escape(f"row {g.row}: {g.message}"))
    console.print(table)
    if len(groups) > _SHOWN_GROUPS:
        console.print(f"and {len(groups) - _SHOWN_GROUPS:,} more reasons and columns")


def print_schema(console: Console, schema: pa.Schema) -> None:
    """Print the names and types of the predictions' columns."""
    shown = [f"{field.name}: {field.type}" for field in list(schema)[:_SHOWN_FIELDS]]
    more = [f"and {len(schema) - _SHOWN_FIELDS:,} more"] if len(schema) > _SHOWN_FIELDS else []
    console.print(f"output  {escape(', '.join([*shown, *more]))}", soft_wrap=True)


def hints(prepared: Prepared, rejected: pa.RecordBatch) -> list[str]:
    """Return settings that would accept more of the first rows, as `KEY: VALUE  # why`."""
    job, read = prepared.job, prepared.steps.read
    faults = rejected["errors"].flatten()  # all faults of a row, not only the first
    wanted = set(pc.unique(pc.struct_field(faults, "column")).to_pylist()) & set(job.columns)
    if not wanted:
        return []
    options = read.options
    names = () if options.header else tuple(dict.fromkeys([*job.columns, *(read.keep or ())]))
    try:
        sample = look_at_files(prepared.files, Hints(read.format, names=names, options=options))
    except JobError:  # a run reports what is wrong with the files
        return []
    found = []
    for name in job.columns:
        if name not in wanted or name not in sample.columns:
            continue
        column = job.columns[name]
        for remedy in remedies(sample.columns[name], column.dtype, sample.is_text):
            if not remedy.is_in(column):
                found.append(f"columns.{name}.{remedy.hint}  # {remedy.why}")
    return found
