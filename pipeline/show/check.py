"""`beam-score check` and `beam-score bench`: try a job before it runs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import pyarrow as pa
from rich import box
from rich.table import Table

from beam_score.pipeline.draft.padded import padded_hint
from beam_score.pipeline.job.job import Job
from beam_score.pipeline.prepare.batch_choice import Choice, choose_batch, default_choice
from beam_score.pipeline.prepare.cost import call_bytes, check_call_fits, check_fits, measure, process_bytes
from beam_score.pipeline.prepare.output_place import check_room
from beam_score.pipeline.prepare.preflight import Prepared, prepare
from beam_score.pipeline.prepare.trial import Trial, load, try_rows
from beam_score.pipeline.printing.terminal import Console, escape
from beam_score.pipeline.process.exit_codes import ExitCode
from beam_score.pipeline.run.output_state import OutputState
from beam_score.pipeline.show.summary import print_rows
from beam_score.pipeline.show.tried import groups_of, hints, over_budget, print_groups, print_schema
from beam_score.runners.choose import engine_of
from beam_score.runners.engine import Engine
from beam_score.runners.lean import recognise_pandas
from beam_score.transforms.common.units import counted
from beam_score.transforms.model.copies import local_model
from beam_score.transforms.model.model import C_API, Model
from beam_score.transforms.model.ops import ops_of

_SHOWN_FILES = 10


@dataclasses.dataclass(frozen=True)
class Checked:
    """The result of a check.

    Attributes:
      predictions: of the rows that were tried.
      rejected: dead letters of the others; see `transforms.rows.faults.REJECTED_SCHEMA`.
      not_ready: why a run would end over its error budget, a sentence each; empty if the job is ready.
    """

    predictions: pa.RecordBatch
    rejected: pa.RecordBatch
    not_ready: list[str]

    @property
    def code(self) -> ExitCode:
        """The exit code of `beam-score check`."""
        return ExitCode.OVER_BUDGET if self.not_ready else ExitCode.DONE


def check_job(job: Job, console: Console, beam_args: Sequence[str] = ()) -> Checked:
    """Check a job, score a few rows, and print what was found.

    Args:
      beam_args: Beam options.

    Raises:
      JobError: with every problem that would prevent a launch.
    """
    began = time.perf_counter()
    engine = engine_of(job.engine, beam_args)
    prepared = prepare(job, known=[*engine.problems(), *engine.place_problems(job.places)])
    recognise_pandas(prepared.steps.read.format)
    check_fits(prepared, engine)
    state = OutputState.of(job.output.path)
    if state.manifest is None and state.current is None:
        check_room(prepared)
    files = counted(len(prepared.files), f"{prepared.steps.read.format} file")
    console.print(f"input   {files}, {prepared.bytes / 1e6:,.1f} MB{_looked_at(prepared)}")
    console.print(
        f"model   {escape(prepared.model.path)} (version {prepared.model.version or '-'}, "
        f"sha256 {prepared.model_hash[:12]})",
        soft_wrap=True,
    )
    console.print(f"        {escape(prepared.signature.describe())}", soft_wrap=True)
    _print_engine(job, prepared, engine, console)
    effects = ops_of(local_model(prepared.model.path, prepared.model_hash), prepared.signature.name).describe()
    if effects:
        does = f"the model does more than compute: {'; '.join(effects)}. Run a model that you do not trust in isolation"
        console.print(f"[yellow]note[/]    {escape(does)}", soft_wrap=True)
    servable = load(prepared)
    trial = try_rows(prepared, servable)
    console.print(
        f"tried   {trial.rows:,} rows: {trial.predictions.num_rows:,} predicted, {trial.rejected.num_rows:,} rejected"
    )
    if trial.padded:
        console.print(f"[yellow]note[/]    {escape(padded_hint(trial.padded))}", soft_wrap=True)
    choice = default_choice(prepared, trial)
    check_call_fits(prepared, trial, choice.batch_rows)
    _print_lines("call", [*_about_calls(job, prepared, trial, choice), *_about_runtime(servable)], console)
    print_rows(console, trial.predictions, "first predictions")
    print_schema(console, trial.predictions.schema)
    _print_lines("note", trial.remarks, console)
    groups = groups_of(trial.rejected)
    if groups:
        print_groups(console, groups)
        _print_lines("hint", hints(prepared, trial.rejected), console)
    for path, error in prepared.unusable[:_SHOWN_FILES]:
        console.print(f"[yellow]unusable[/] {escape(path)}: {escape(str(error))}", soft_wrap=True)
    not_ready = [f"of the first rows, {problem}" for problem in over_budget(job, trial)]
    if len(prepared.unusable) > job.rejects.files:
        not_ready = [
            f"{len(prepared.unusable)} of {counted(len(prepared.files), 'file')} cannot be used, and rejects.files "
            f"allows {job.rejects.files}: fix the files, or set rejects.files"
        ]
    for problem in not_ready:
        console.print(f"[bold red]not ready[/]: {escape(problem)}", soft_wrap=True)
    if not not_ready:
        _print_lines("cost", engine.estimate(lambda: measure(prepared, servable, trial)), console)
        console.print(f"[bold green]ready[/] in {time.perf_counter() - began:.1f} s")
    return Checked(trial.predictions, trial.rejected, not_ready)


def _looked_at(prepared: Prepared) -> str:
    if prepared.looked_at == len(prepared.files):
        return ""
    return f"; the headers or footers of {prepared.looked_at:,} were read, the others will be with their rows"


def _about_calls(job: Job, prepared: Prepared, trial: Trial, choice: Choice) -> list[str]:
    lines = [f"{choice.batch_rows:,} rows per call ({choice.why})"]
    if job.model.batch_rows == "auto" and prepared.steps.call.fixed_rows is None:
        lines[0] += "; the launch of a large job measures other sizes"
    if trial.call_rows:
        lines.append(
            f"memory: {trial.call_bytes / 1e6:,.0f} MB more for a call with {trial.call_rows:,} rows (measured); about "
            f"{call_bytes(prepared, trial, choice.batch_rows) / 1e6:,.0f} MB per process for {choice.batch_rows:,} rows"
        )
    if choice.compiled:
        lines.append(
            "engine.xla is on: rows for which TensorFlow raises an error may get a prediction, and integers and NaN "
            "may differ from results without XLA"
        )
    if not job.model.independent:
        lines.append("model.independent is false: the prediction of a row may depend on other rows of its batch")
    return lines


def _about_runtime(servable: Model) -> list[str]:
    if servable.runtime == C_API:
        return []
    return [f"by Python's TensorFlow, whose import takes seconds: {servable.why or 'engine.xla is on'}"]


def _print_engine(job: Job, prepared: Prepared, engine: Engine, console: Console) -> None:
    memory = process_bytes(job, prepared)
    lines = [
        *engine.explain(),
        f"{prepared.steps.call.intra_op_threads} intra-op threads; memory about {memory / 1e9:.1f} GB per process, "
        "a rough estimate: libraries, the model's size on disk, blocks in flight",
    ]
    _print_lines("engine", lines, console)


def _print_lines(name: str, lines: Sequence[str], console: Console) -> None:
    for at, line in enumerate(lines):
        console.print(f"{'' if at else name:<8}{escape(line)}", soft_wrap=True)


def bench_job(job: Job, console: Console) -> None:
    """Measure batch sizes on the job's first rows, and print the timings and the choice of `auto`."""
    prepared = prepare(job)
    servable = load(prepared)
    choice = choose_batch(prepared, servable, try_rows(prepared, servable, 8192), always=True)
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("batch rows", "XLA", "ms per call", "rows/s"):
        table.add_column(name, justify="right")
    for t in choice.timings:
        chosen = (t.batch_rows, t.compiled) == (choice.batch_rows, choice.compiled)
        table.add_row(
            f"{t.batch_rows:,}",
            "on" if t.compiled else "off",
            f"{t.ms:,.3f}",
            f"{t.rows_per_s:,.0f}",
            style="bold green" if chosen else "",
        )
    console.print(table)
    console.print(
        f"auto: {choice.batch_rows:,} rows per call, XLA {'on' if choice.compiled else 'off'}: {escape(choice.why)}"
    )
