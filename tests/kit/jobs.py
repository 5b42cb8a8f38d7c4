"""Whole jobs over small real files: written, launched in this process or in a separate one, and read back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam
import polars as pl
import pytest
from apache_beam.runners.runner import PipelineResult
from forks import ROOT, Piped, environment, shared

from beam_score.pipeline.job.job import Job, parse_job
from beam_score.pipeline.job.steps import Steps
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.pipeline.prepare.trial import load
from beam_score.pipeline.run.begin import pinned, plan_run
from beam_score.runners.local import Local
from beam_score.runners.settings.engine import EngineSettings
from beam_score.transforms.ledger.attempt import WriteSettings
from beam_score.transforms.ledger.folder import RunFolder, read_plan
from beam_score.transforms.ledger.receipt import Receipt

_TIMEOUT_S = 300

COLUMNS = {
    "age": {"dtype": "float32", "range": [0, 150]},
    "income": {"dtype": "float32"},
    "score": {"dtype": "float32", "range": [0, 1]},
}


def write_people(folder: Path, files: int = 4, rows: int = 1000, bad_every: int = 0) -> int:
    """Write people-N.csv with `rows` rows each; every `bad_every`-th row has an age that is not a number.

    Returns the number of bad rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bad = 0
    for file in range(files):
        lines = ["id,age,income,score"]
        for row in range(rows):
            spoilt = bad_every and row % bad_every == bad_every - 1
            bad += bool(spoilt)
            lines.append(f"r{file}-{row},{'n/a' if spoilt else row % 90},{row % 7}.5,0.{row % 10}")
        (folder / f"people-{file}.csv").write_text("\n".join(lines) + "\n")
    return bad


def settings(tmp_path: Path, saved_model: str, **sections) -> dict:
    """Return a job file as plain data, over `tmp_path/data`, with sections updated."""
    job = {
        "input": {"files": str(tmp_path / "data" / "*.csv")},
        "model": {"path": saved_model, "batch_rows": 256},
        "columns": COLUMNS,
        "inputs": {"inputs": {"pack": ["age", "income", "score"]}},
        "output": {"path": str(tmp_path / "out"), "keep": ["id"]},
        "engine": {"workers": 2, "split_bytes": "8KiB", "block_bytes": "1KiB", "xla": "off"},
    }
    for name, section in sections.items():
        job[name] = {**job[name], **section} if name in job and name not in ("columns", "inputs") else section
    return job


def job(tmp_path: Path, saved_model: str, **sections) -> Job:
    return parse_job(settings(tmp_path, saved_model, **sections))


def write_job(tmp_path: Path, saved_model: str, **sections) -> str:
    """Write job.yaml, as JSON, which is also YAML; return its path."""
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(settings(tmp_path, saved_model, **sections), indent=1))
    return str(path)


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run that is planned but not launched."""

    job: Job
    folder: RunFolder
    steps: Steps
    write: WriteSettings
    splits: int


def plan(job_: Job) -> Planned:
    prepared = prepare(job_)
    fingerprint = prepared.fingerprint()
    folder = plan_run(prepared, fingerprint, load(prepared))
    steps = pinned(prepared, read_plan(folder))
    write = WriteSettings(folder, steps.outputs.schema, job_.output.format, job_.output.not_finite)
    return Planned(job_, folder, steps, write, read_plan(folder)["splits"])


def run_locally(build: Callable[[beam.Pipeline], object], workers: int) -> PipelineResult:
    """Run a pipeline with `workers` threads."""
    return Local(EngineSettings(workers=workers)).run(build)


def receipts(folder: RunFolder) -> list[Receipt]:
    return [Receipt.from_json(p.read_bytes()) for p in sorted(folder.receipts.glob("[0-9]*.json"))]


def staged(output: Path) -> list[Path]:
    """Return the receipts of the only run under an output folder."""
    return sorted(output.glob("_staging/*/receipts/[0-9]*.json"))


def predictions(output: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(p) for p in sorted(Path(output, "predictions").glob("*.parquet"))])


def dead_letters(output: Path) -> list[dict]:
    files = sorted(Path(output, "rejected").glob("*.jsonl"))
    return [json.loads(line) for p in files for line in p.read_text().splitlines()]


def manifest(output: Path) -> dict:
    return json.loads(Path(output, "manifest.json").read_bytes())


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """Mount an in-memory file system on a folder while the body runs; yields a function that changes its options.

    Skips the test if this user may not mount; in CI that is a failure.

    Args:
      options: of mount: `size=1m`, `ro`.
    """
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        said = f"a file system cannot be mounted here, which takes root: {mounted.stderr.strip()}"
        pytest.fail(said) if os.environ.get("CI") else pytest.skip(said)
    try:
        yield lambda other: subprocess.run(["mount", "-o", f"remount,{other}", str(folder)], check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "beam_score.pipeline.cli", *arguments]


def cli(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `beam-score ARGUMENTS` in a process forked from one that has imported everything; see `forks`."""
    ended = shared().run(*arguments, cwd=cwd, timeout_s=_TIMEOUT_S, **env)
    return subprocess.CompletedProcess(arguments, ended.code, ended.out, ended.err)


def anew(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `beam-score ARGUMENTS` in a new Python, as users do; it takes seconds to import everything."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env=environment(**env), timeout=_TIMEOUT_S
    )


def start(*arguments: str, **env: str) -> Piped:
    """Start `beam-score ARGUMENTS` like `cli`, in its own session, and return it at once."""
    return shared().start_piped(*arguments, **env)
