"""The summary at the end of a run, and a table of rows for `check`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from beam_score.pipeline.printing.terminal import Console, escape
from beam_score.pipeline.show.status_view import add_counts, fact_table
from beam_score.transforms.common.units import counted
from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.manifest import FAILED, MANIFEST
from beam_score.transforms.ledger.publication import files_of_runs

if TYPE_CHECKING:
    import pyarrow as pa

    from beam_score.pipeline.run.protocol import Outcome

_MOST_SHOWN = 20  # pairs of reason and column
_LOOKED_AT = 50  # dead-letter files searched for examples


def print_summary(console: Console, output: str, outcome: Outcome) -> None:
    """Print the outcome of a run: counts, examples, speed, paths, and a command to view the predictions."""
    manifest, seconds = outcome.manifest, outcome.seconds
    counts = manifest["counts"]
    done = manifest["verdict"] == "done"
    if outcome.by_another:
        console.print(f"[bold green]Done[/] by another launch of this job: run {manifest['run']} is published.")
    elif outcome.already:
        console.print(f"[bold green]Finished already[/]: run {manifest['run']}; nothing was scored again.")
    elif done:
        console.print(f"[bold green]Done[/]: run {manifest['run']}")
    else:
        console.print(f"[bold red]Over the error budget[/]: run {manifest['run']}")
        for problem in manifest["over_budget"]:
            console.print(f"  {escape(problem)}", soft_wrap=True)
    table = fact_table()
    add_counts(table, counts)
    by_column = counts.get("rejected_by_column", ())[:_MOST_SHOWN]
    examples = _examples(output, manifest, {_pair(one) for one in by_column})
    for one in by_column:
        if one["rows"] or one["also"]:
            also = f"(and {one['also']:,} more rows that have an earlier fault) " if one["also"] else ""
            table.add_row(f"  {_fault(one)}", f"{one['rows']:,}", escape(also + examples.get(_pair(one), "")))
    if counts["stretches"]:
        table.add_row("unreadable", f"{counts['stretches']:,}", "files, or parts of files of unknown length")
        for one in by_column:
            if one["stretches"]:
                table.add_row(f"  {_fault(one)}", f"{one['stretches']:,}", escape(examples.get(_pair(one), "")))
    for name, rows in manifest["defaults_used"].items():
        table.add_row(f"default of {escape(name)}", f"{rows:,}", "missing values, filled with the default")
    for name, rows in manifest["not_finite_outputs"].items():
        table.add_row(f"{escape(name)} not finite", f"{rows:,}", "predictions with NaN or infinity")
    for name, rows in manifest.get("not_probabilities", {}).items():
        table.add_row(f"{escape(name)} outside of 0..1", f"{rows:,}", "not probabilities: is the meaning logits?")
    console.print(table)
    timings, engine = manifest["timings"], manifest["engine"]
    if timings["rows_per_s"] and not outcome.already:
        console.print(
            f"{timings['rows_per_s']:,} rows/s over {timings['first_read_to_last_receipt_s']:,.1f} s, "
            f"{counted(engine['workers'], 'worker')}, {counted(engine['batch_rows'], 'row')} per call, "
            f"XLA {'on' if engine['xla'] else 'off'}"
        )
    if seconds:
        console.print(
            "[dim]start-up: "
            + ", ".join(f"{name} {s:.1f} s" for name, s in seconds.items() if not name.startswith("run"))
            + "[/]"
        )
    console.print()
    root = storage.at(output)
    where: dict[str, object] = {"predictions": root / "predictions" if done else None}
    where["dead letters"] = root / "rejected" if counts["rejected"] or counts["stretches"] else None
    where["record"] = root / (MANIFEST if done else FAILED)
    where["replaced"] = _replaced(output, manifest) if done else None
    for name, path in where.items():
        if path is not None:
            console.print(f"{name:<12} {escape(str(path))}", soft_wrap=True)
    if (counts["rejected"] or counts["stretches"]) and engine is not None:  # else nothing was read
        again = f"beam-score replay {shlex.quote(output)} --set KEY=VALUE"
        console.print(f"fix it       [bold]{escape(again)}[/]  scores the dead letters again", soft_wrap=True)
    if done:
        console.print(f"view it      [bold]{escape(_look(output, manifest))}[/]", soft_wrap=True)
        return
    remedies = []
    if counts["rejected"]:
        remedies.append(f"--set rejects.budget={counts['rejected']}")
    if counts["stretches"]:
        remedies.append(f"--set rejects.files={counts['stretches']}")
    if engine is None:
        said = "Nothing was read. Fix the input or the contract; or allow this number of faults: "
    else:
        said = (
            "Predictions are not published. Fix the input or the contract; or allow this number of faults, and the "
            "same command publishes the predictions without scoring again: "
        )
    console.print(f"{said} [bold]{' '.join(remedies)}[/]", soft_wrap=True)


def _replaced(output: str, manifest: Mapping[str, Any]) -> str | None:
    """Return a message about files of replaced runs, kept for readers of an older manifest; None without such files."""
    runs = {path.name.rpartition("-")[0] for path in files_of_runs(output, manifest["replaces"])}
    if not runs:
        return None
    return (
        f"{', '.join(sorted(runs))}: its files are kept for current readers, until the next --replace or: "
        f"beam-score clean {shlex.quote(output)}"
    )


def _python() -> str:
    """Return the shortest path of this Python, which has the packages that the command needs."""
    relative = os.path.relpath(sys.executable)
    return relative if len(relative) < len(sys.executable) else sys.executable


def _look(output: str, manifest: Mapping[str, Any]) -> str:
    first = next(f["path"] for f in manifest["files"] if f["kind"] == "predictions")
    reader = "scan_parquet" if first.endswith(".parquet") else "scan_ndjson"
    # With the run's id: files of a replaced run may be in the same folder.
    pattern = str(storage.at(output) / "predictions" / f"{manifest['run']}-*{PurePath(first).suffix}")
    program = f"import polars; print(polars.{reader}({pattern!r}).head().collect())"
    return f"{shlex.quote(_python())} -c {_double_quoted(program)}"


def _double_quoted(text: str) -> str:
    """Quote a text for a shell; with double quotes if it has no characters that are special inside them."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def _pair(one: Mapping[str, Any]) -> tuple[str, str | None]:
    return one["reason"], one["column"]


def _fault(one: Mapping[str, Any]) -> str:
    return escape(one["reason"] if one["column"] is None else f"{one['reason']} in {one['column']}")


def _examples(
    output: str, manifest: Mapping[str, Any], wanted: Collection[tuple[str, str | None]]
) -> dict[tuple[str, str | None], str]:
    """Return one dead letter for each pair of reason and column, as one line."""
    if not wanted:
        return {}
    import polars as pl

    found: dict[tuple[str, str | None], str] = {}
    for file in [f for f in manifest["files"] if f["kind"] == "rejected"][:_LOOKED_AT]:
        content = storage.read(storage.at(output) / file["path"])
        if not content:
            continue
        names = ("source", "row", "reason", "column", "message")
        frame = pl.read_ndjson(content, schema={n: pl.Int64 if n == "row" else pl.String for n in names})
        for letter in frame.unique(["reason", "column"], keep="first").iter_rows(named=True):
            found.setdefault(_pair(letter), f"{letter['source']} row {letter['row']}: {letter['message']}")
        if found.keys() >= set(wanted):
            break
    return found


def print_rows(console: Console, batch: pa.RecordBatch, title: str, most: int = 5) -> None:
    """Print the first rows of a batch as a table."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in batch.schema.names:
        table.add_column(escape(name), overflow="fold")
    for row in batch.slice(0, most).to_pylist():
        table.add_row(*(escape(_short(v)) for v in row.values()))
    console.print(table)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(_short(v) for v in value[:6]) + (", ...]" if len(value) > 6 else "]")
    text = json.dumps(value) if isinstance(value, bool | type(None)) else str(value)
    return text if len(text) <= 120 else text[:117] + "..."
