"""Time of the commands at a keyboard, in shares of `python -c 'import tensorflow'`; and of a small job, in shares of
the plainest script that does the same.

    python benchmarks/startup.py --pairs 7

Makes the demo's data (200,000 rows) and model once, under --folder. Each round runs every command once in a new
process, in the opposite order every other round. Prints, per command, its clock and its processor time in seconds
(medians), and both as shares of the reference in the same round: median (range).
"""

from __future__ import annotations

import argparse
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from compare import spread

HERE = pathlib.Path(__file__).resolve().parent
DEMO = HERE.parent / "examples" / "demo"

SCRIPT = """
import tensorflow as tf, polars as pl, numpy as np
rows = pl.read_csv("demo/data/people-*.csv", ignore_errors=True, truncate_ragged_lines=True,
                   schema={"id": pl.Int64, "age": pl.Float32, "income": pl.Float32, "score": pl.Float32})
rows = rows.with_columns(pl.col("score").fill_null(0.5)).drop_nulls()
x = (rows.select("age", "income", "score").to_numpy() - [40, 50000, 0.5]) / [12, 30000, 0.3]
serve = tf.saved_model.load("demo/models/people/1").signatures["serving_default"]
out = [serve(inputs=tf.constant(part, tf.float32))["probabilities"].numpy()
       for part in np.array_split(x, max(1, len(x) // 8192))]
rows.select("id").with_columns(pl.Series("probabilities", np.concatenate(out))).write_parquet("script.parquet")
"""
"""The plainest script: it does not check ranges, keeps no dead letters, and no record."""

TENSORFLOW, PLAIN = "import tensorflow", "plainest script"
GOALS = {"--help": 0.05, "status": 0.1, "inspect": 0.1, "init": 0.3, "check": 0.7, "run": 0.7}


def commands() -> dict[str, Sequence[str]]:
    """Return the commands by name; `run` is the whole job, from nothing to its end."""
    beam_score = [sys.executable, "-m", "beam_score.pipeline.cli"]
    model, data = "demo/models/people", "demo/data/people-*.csv"
    return {
        TENSORFLOW: [sys.executable, "-c", "import tensorflow"],
        PLAIN: [sys.executable, "-c", SCRIPT],
        "run": [*beam_score, "run", "job.yaml"],
        "run, finished": [*beam_score, "run", "finished.yaml"],
        "run, a typo": [*beam_score, "run", "finished.yaml", "--set", "inputs.inputs.pack=[age, incom, score]"],
        "check": [*beam_score, "check", "job.yaml"],
        "init": [*beam_score, "init", model, "--data", data, "-o", "-"],
        "inspect": [*beam_score, "inspect", model],
        "status": [*beam_score, "status", "finished"],
        "--help": [*beam_score, "--help"],
    }


def prepare(folder: pathlib.Path) -> None:
    """Make data, model, job files and a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    python = [sys.executable]
    if not (folder / "demo/models/people/1/saved_model.pb").exists():
        subprocess.run([*python, DEMO / "make_model.py", "demo/models/people/1"], cwd=folder, check=True)
    subprocess.run([*python, DEMO / "make_data.py", "demo/data"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    job = (DEMO / "job.yaml").read_text()
    (folder / "job.yaml").write_text(job.replace("demo/out", "out"))
    (folder / "finished.yaml").write_text(job.replace("demo/out", "finished"))
    timed(commands()["run, finished"], folder)


def timed(command: Sequence[str], folder: pathlib.Path) -> tuple[float, float]:
    """Run a command; return its seconds by the clock, and of processor time with its child processes."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("bench-data/startup"))
    arguments = parser.parse_args()
    prepare(arguments.folder)
    names = list(commands())
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(arguments.pairs):
        for name in names if number % 2 else names[::-1]:
            found[name].append(timed(commands()[name], arguments.folder))
    print("| command | clock, s | CPU, s | share of | of its clock | of its CPU | goal |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        reference = PLAIN if name == "run" else TENSORFLOW
        clock, cpu = (statistics.median(times) for times in zip(*found[name], strict=True))
        shares = (
            spread([own[kind] / other[kind] for own, other in zip(found[name], found[reference], strict=True)])
            for kind in (0, 1)
        )
        print(f"| `{name}` | {clock:.2f} | {cpu:.2f} | {reference} | {' | '.join(shares)} | {GOALS.get(name, '')} |")


if __name__ == "__main__":
    main()
