"""Run beam-score and its peers in turns on the same files, and print a comparison.

    python benchmarks/compare.py --rows 20000000 --pairs 7             # all suites
    python benchmarks/compare.py --rows 1000000 --pairs 3 csv jsonl    # some, shorter
    python benchmarks/compare.py --contenders ours,hand-tuned          # just these, the first against the rest
    python benchmarks/compare.py --before ../older                     # against another checkout of beam-score

A machine's speed drifts by more than the differences that matter, so contenders run interleaved, each in a separate
process, in the opposite order every other round. The result is the ratio within a round, with its median and range over
the rounds. CPU time per row is printed next to rows/s, to distinguish less work from better use of the cores. The clock
runs from the first read to the last write (for beam-score: the last receipt), which excludes start-up, negligible in a
long job.

Missing data sets and models are created under --folder; every run is recorded in `runs.jsonl` there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from make_data import make_data

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Bench:
    """The settings that all contenders share.

    Attributes:
      folder: contains data sets, models and outputs.
      rows: rows of a data set.
      shards: files of a data set.
      threads: worker threads of each contender.
      model: `small` or `large`; see `make_model.py`.
      settings: `key=value` of the job file, for beam-score only.
    """

    folder: pathlib.Path
    rows: int
    shards: int
    threads: int
    model: str
    settings: tuple[str, ...] = ()

    def data(self, format_: str, bad: bool = False) -> pathlib.Path:
        """Return a data set's folder; create the data set if it is missing."""
        folder = self.folder / f"{format_}-{self.rows}x{self.shards}{'-bad' if bad else ''}"
        if not folder.exists():
            print(f"making {folder}", file=sys.stderr)
            unfinished = folder.with_name(folder.name + ".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make_data(unfinished, format_, self.rows, self.shards, 0.01 if bad else 0.0)
            unfinished.rename(folder)
        return folder

    def model_path(self) -> pathlib.Path:
        """Return a model's folder of versions; create the model if it is missing."""
        folder = self.folder / "models" / self.model
        if not (folder / "1" / "saved_model.pb").exists():
            command = [sys.executable, HERE / "make_model.py", "--size", self.model, folder / "1"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return folder


@dataclasses.dataclass(frozen=True)
class Process:
    """Output and resource use of a command that has ended."""

    stdout: str
    seconds: float
    peak_rss_mb: float


def run_process(command: Sequence[object]) -> Process:
    """Run a command to its end.

    Raises:
      RuntimeError: the command failed; the message includes the end of its standard error.
    """
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        start = time.perf_counter()
        stdout, stderr = (pipe.decode(errors="replace") for pipe in drain(process))
        # Only wait4 reports the memory of a single child.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"exit {process.returncode}: {' '.join(map(str, command))}\n{stdout[-500:]}{stderr[-2000:]}")
    return Process(stdout, time.perf_counter() - start, usage.ru_maxrss / 1024)


def drain(process: subprocess.Popen) -> tuple[bytes, bytes]:
    """Return everything that the process writes until it closes both pipes."""
    texts: dict[str, bytes] = {}
    pipes = {"stdout": process.stdout, "stderr": process.stderr}
    readers = [threading.Thread(target=lambda n=n, p=p: texts.update({n: p.read()})) for n, p in pipes.items()]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return texts["stdout"], texts["stderr"]


@dataclasses.dataclass(frozen=True)
class Peer:
    """A script of this folder that prints one line of JSON (`people.Clock.report`)."""

    script: str
    options: tuple[str, ...] = ()
    input_format: str = "csv"
    takes_threads: bool = True

    def run(self, bench: Bench, out: pathlib.Path) -> dict[str, Any]:
        pattern = bench.data(self.input_format) / f"*.{self.input_format}"
        command = [sys.executable, HERE / self.script, pattern, "--model", bench.model_path() / "1", "--out", out]
        threads = ["--threads", bench.threads] if self.takes_threads else []
        process = run_process([*command, *threads, *self.options])
        report = json.loads(process.stdout.splitlines()[-1])
        return {**report, "peak_rss_mb": process.peak_rss_mb, "whole_seconds": process.seconds}


@dataclasses.dataclass(frozen=True)
class Ours:
    """`beam-score run` with all its features: validation, dead letters, receipts, commit."""

    input_format: str = "csv"
    output_format: str = "parquet"
    bad: bool = False
    checkout: pathlib.Path | None = None

    def command(self, bench: Bench, out: pathlib.Path) -> list[object]:
        """Return the command of the task; writes its job file next to its output."""
        job = out.with_suffix(".yaml")
        job.parent.mkdir(parents=True, exist_ok=True)
        job.write_text(json.dumps(self.job(bench, out), indent=2))  # JSON is valid YAML 1.2
        settings = [part for setting in bench.settings for part in ("--set", setting)]
        program = [sys.executable, "-m", "beam_score.pipeline.cli"]
        if self.checkout is not None:
            program = ["env", f"PYTHONPATH={self.checkout}", f"--chdir={self.checkout}", *program]
        return [*program, "run", job, "--json", *settings]

    def run(self, bench: Bench, out: pathlib.Path) -> dict[str, Any]:
        process = run_process(self.command(bench, out))
        manifest = json.loads(process.stdout)
        timings = manifest["timings"]
        seconds = timings["first_read_to_last_receipt_s"]
        return {
            "rows": bench.rows,
            "seconds": seconds,
            "cpu_seconds": manifest["launch_s"]["run_cpu"],  # the CPU time of the whole process would include start-up
            "rows_per_s": round(bench.rows / seconds),
            "peak_rss_mb": process.peak_rss_mb,
            "whole_seconds": process.seconds,
        }

    def job(self, bench: Bench, out: pathlib.Path) -> dict[str, Any]:
        """Return the peers' task as a job file."""
        return {
            "input": {"files": f"{bench.data(self.input_format, self.bad)}/*.{self.input_format}"},
            "model": {"path": str(bench.model_path()), "batch_rows": "auto"},
            "columns": {
                "id": {"dtype": "int64"},
                "age": {"dtype": "float32", "range": [0, 150]},
                "income": {"dtype": "float32", "range": [0, None]},
                "score": {"dtype": "float32", "range": [0, 1]},
            },
            "inputs": {
                "inputs": {
                    "pack": ["age", "income", "score"],
                    "standardize": {"mean": [40, 5e4, 0.5], "std": [12, 3e4, 0.3]},
                }
            },
            "outputs": {"prediction": {}},
            "output": {"path": str(out), "format": self.output_format, "keep": ["id"]},
            "rejects": {"budget": "5%"},
            "engine": {"runner": "local", "workers": bench.threads},
        }


CONTENDERS: dict[str, Ours | Peer] = {
    "ours": Ours(),
    "ours-jsonl": Ours("jsonl"),
    "ours-parquet": Ours("parquet"),
    "ours-tfrecord": Ours("tfrecord"),
    "ours-bad": Ours("csv", bad=True),
    "ours-jsonl-bad": Ours("jsonl", bad=True),
    "ours-parquet-bad": Ours("parquet", bad=True),
    "ours-tfrecord-bad": Ours("tfrecord", bad=True),
    "ours-to-jsonl": Ours(output_format="jsonl"),
    "hand-default": Peer("hand_loop.py", ("--form", "default")),
    "hand-tuned": Peer("hand_loop.py", ("--form", "tuned")),
    "hand-tuned-typed": Peer("hand_loop.py", ("--form", "tuned", "--reader", "typed")),
    "hand-tuned-no-xla": Peer("hand_loop.py", ("--form", "tuned", "--no-xla")),
    "hand-jsonl": Peer("hand_loop.py", ("--form", "tuned"), "jsonl"),
    "hand-to-jsonl": Peer("hand_loop.py", ("--form", "tuned", "--output", "jsonl")),
    "stock-runinference": Peer("stock_runinference.py"),
    "dictreader": Peer("dictreader.py", takes_threads=False),
}

SUITES: dict[str, list[tuple[str, ...]]] = {
    "csv": [("ours", "hand-default", "hand-tuned", "hand-tuned-typed")],
    "jsonl": [("ours-jsonl", "hand-jsonl"), ("ours-to-jsonl", "hand-to-jsonl")],
    "dirty": [
        ("ours-bad", "ours"),
        ("ours-jsonl-bad", "ours-jsonl"),
        ("ours-parquet-bad", "ours-parquet"),
        ("ours-tfrecord-bad", "ours-tfrecord"),
    ],
    "slow": [("ours", "stock-runinference", "dictreader")],
}
"""Groups of contenders that run interleaved; the first of a group is compared with each of the others."""

SLOW_ROWS = 1_000_000
"""Maximum number of rows for the suite `slow`: with more, its peers would take ten minutes per run."""


def compare(names: Sequence[str], bench: Bench, pairs: int, tell: Callable[[str], None]) -> None:
    """Run a group interleaved and print two tables: the contenders, and the ratios."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for round_ in range(pairs):
        for name in names if round_ % 2 == 0 else reversed(names):
            out = bench.folder / "out" / name
            shutil.rmtree(out, ignore_errors=True)
            out.parent.mkdir(parents=True, exist_ok=True)
            result = CONTENDERS[name].run(bench, out)
            runs[name].append(result)
            record = {"name": name, "round": round_, "model": bench.model, "threads": bench.threads, **result}
            with (bench.folder / "runs.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(f"round {round_ + 1}/{pairs} {name}: {result['rows_per_s']:,} rows/s", file=sys.stderr)
            shutil.rmtree(out, ignore_errors=True)

    tell(f"\n{bench.rows:,} rows, {bench.model} model, {bench.threads} threads, {pairs} rounds: median (range)\n")
    tell("| contender | million rows/s | CPU µs a row | peak memory, MB | start-up, s |")
    tell("| --- | --- | --- | --- | --- |")
    for name, results in runs.items():
        speed = spread([result["rows_per_s"] / 1e6 for result in results])
        cpu = spread([result["cpu_seconds"] / result["rows"] * 1e6 for result in results])
        memory = max(result["peak_rss_mb"] for result in results)
        start_up = statistics.median(result["whole_seconds"] - result["seconds"] for result in results)
        tell(f"| {name} | {speed} | {cpu} | {memory:.0f} | {start_up:.1f} |")
    tell("\n| ratio | rows/s | CPU a row |")
    tell("| --- | --- | --- |")
    first, *rest = names
    for name in rest:
        paired = list(zip(runs[first], runs[name], strict=True))
        speed = spread([ours["rows_per_s"] / peer["rows_per_s"] for ours, peer in paired])
        cpu = spread([ours["cpu_seconds"] * peer["rows"] / peer["cpu_seconds"] / ours["rows"] for ours, peer in paired])
        tell(f"| {first} / {name} | {speed} | {cpu} |")


def spread(values: Sequence[float]) -> str:
    """Return the median and the range, as text."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all, if none is named")
    parser.add_argument("--contenders", help=f"one group instead, by commas, of {', '.join(CONTENDERS)}")
    parser.add_argument("--before", type=pathlib.Path, help="another checkout: how this one compares, in all formats")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("bench-data"))
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=7, help="rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", choices=["small", "large"], default="small")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the job file, for ours")
    args = parser.parse_args()
    for suite in args.suites:
        if suite not in SUITES:
            parser.error(f"no suite {suite!r}; there are: {', '.join(SUITES)}")
    groups = [("", tuple(args.contenders.split(",")))] if args.contenders else []
    if args.before:
        of_before = {
            f"{name}@before": dataclasses.replace(contender, checkout=args.before.resolve())
            for name, contender in CONTENDERS.items()
            if isinstance(contender, Ours)
        }
        CONTENDERS.update(of_before)
        groups = groups or [("", (name.removesuffix("@before"), name)) for name in of_before]
    if not groups:
        groups = [(suite, group) for suite in args.suites or SUITES for group in SUITES[suite]]
    for name in (name for _, group in groups for name in group):
        if name not in CONTENDERS:
            parser.error(f"no contender {name!r}; there are: {', '.join(CONTENDERS)}")

    for suite, group in groups:
        rows = min(args.rows, SLOW_ROWS) if suite == "slow" else args.rows
        bench = Bench(args.folder.resolve(), rows, args.shards, args.threads, args.model, tuple(args.set))
        compare(group, bench, args.pairs, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
