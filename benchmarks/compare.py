"""Run beam-score and its peers in turns on the same files, and print a comparison.

    python benchmarks/compare.py --rows 20000000 --pairs 7             # all suites
    python benchmarks/compare.py --rows 1000000 --pairs 3 csv jsonl    # some, shorter
    python benchmarks/compare.py --contenders ours,hand-tuned          # just these, the first against the rest
    python benchmarks/compare.py --before ../older                     # against another checkout of beam-score

A machine's speed drifts by more than the differences that matter, so contenders run interleaved, each in a separate
process, in the opposite order every other round. The result is the ratio within a round, with its median and range over
the rounds; a range that includes 1 shows no difference, and the table says so. CPU time per row is printed next to
rows/s, to distinguish less work from better use of the cores.

The clock runs from the first read to the last write (for beam-score: the last receipt), which excludes start-up,
negligible in a long job. In a group with a contender that does not know these moments (`peers`, `small`), it runs from
the start of the command to its exit, for all of them, and CPU time is that of all processes of the command.

In the first round, the predictions of each contender are compared with those of the first: a contender whose
predictions differ is refused. One that fails is left out.

Missing data sets, models and environments of peers are created under --folder; every run is recorded in `runs.jsonl`
there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence

import polars as pl
from contenders import CONTENDERS, SUITES, Bench, Group, Measured, Ours, score
from machine import cores, describe
from shapes import SHAPES

TOLERANCE = 1e-4
"""Predictions, which are probabilities, may differ by this much: the order of additions depends on the batch."""

LEAST_ROUNDS = 3
"""Fewer rounds have no range."""


def compare(names: Sequence[str], bench: Bench, pairs: int, tell: Callable[[str], None]) -> None:
    """Run a group interleaved and print two tables: the contenders, and the ratios."""
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    expected: dict[bool, pl.DataFrame] = {}
    for round_ in range(pairs):
        for name in list(runs) if round_ % 2 == 0 else reversed(list(runs)):
            contender, out = CONTENDERS[name], bench.folder / "out" / name
            try:
                result = score(contender, bench, out)
            except RuntimeError as error:
                if name == names[0]:
                    raise
                tell(f"\n{name} is left out: {error}")
                del runs[name]
                continue
            if round_ == 0:
                found = predictions(out)
                difference = compare_predictions(found, expected.setdefault(contender.bad, found))
                if difference:
                    tell(f"\n{name} is refused: {difference}")
                    del runs[name]
                    continue
            shutil.rmtree(out, ignore_errors=True)
            runs[name].append(result)
            told = f"{result['rows']:,} rows in {result['whole_seconds']:.1f} s"
            print(f"round {round_ + 1}/{pairs} {bench.shape} {name}: {told}", file=sys.stderr)
            record = {"name": name, "round": round_, "shape": bench.shape, "model": bench.model_name} | result
            with (bench.folder / "runs.jsonl").open("a") as file:
                file.write(json.dumps({**record, "threads": bench.threads, "shards": bench.shards}) + "\n")
    tell(f"\n{bench.shape}, {bench.rows:,} rows, {bench.model_name} model, {bench.threads} threads, rounds: {pairs}")
    for line in tables(runs):
        tell(line)


def predictions(out: pathlib.Path) -> pl.DataFrame:
    """Return id, int64, and prediction, float32, by id, of a contender's output."""
    folder = out / "predictions" if (out / "predictions").exists() else out
    files = [str(path) for path in sorted(folder.rglob("*.parquet"))]
    table = pl.scan_parquet(files) if files else pl.scan_ndjson(sorted(folder.glob("*.jsonl")))
    return table.select(pl.col("id").cast(pl.Int64), pl.col("prediction").cast(pl.Float32)).sort("id").collect()


def compare_predictions(found: pl.DataFrame, expected: pl.DataFrame) -> str:
    """Return how predictions differ, or an empty text."""
    if not found["id"].equals(expected["id"]):
        return f"other rows: {found.height:,}, and {expected.height:,} are expected"
    if found.filter(pl.col("prediction").is_finite()).height < found.height:
        return "a prediction is null or not finite"
    difference = (found["prediction"] - expected["prediction"]).abs().max() or 0.0
    return "" if difference <= TOLERANCE else f"a prediction differs by {difference}"


def tables(runs: dict[str, list[Measured]]) -> list[str]:
    """Return the lines of two tables, in Markdown: the contenders, and the ratios of the first to the others."""
    own_clock = all("seconds" in result for results in runs.values() for result in results)
    seconds, cpu_seconds = ("seconds", "cpu_seconds") if own_clock else ("whole_seconds", "whole_cpu_seconds")

    def each(name: str, of: Callable[[Measured], float]) -> list[float]:
        return [of(result) for result in runs[name]]

    lines = [
        f"Clock: {'first read to last write' if own_clock else 'start of the command to its exit'}",
        "",
        "| contender | seconds | million rows/s | CPU µs a row | CPU used | peak memory, MB | start-up, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in runs:
        start_up = statistics.median(each(name, lambda run: run["whole_seconds"] - run[seconds]))
        cells = [
            name,
            spread(each(name, lambda run: run[seconds])),
            spread(each(name, lambda run: run["rows"] / run[seconds] / 1e6)),
            spread(each(name, lambda run: run[cpu_seconds] / run["rows"] * 1e6)),
            f"{statistics.median(each(name, lambda run: run[cpu_seconds] / run[seconds] / cores())):.0%}",
            f"{max(each(name, lambda run: run['peak_mb'])):.0f}",
            f"{start_up:.1f}" if own_clock else "included",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| ratio | rows/s | CPU a row |", "| --- | --- | --- |"]
    first, *rest = runs
    for name in rest:
        paired = list(zip(runs[first], runs[name], strict=True))
        speed = [ours["rows"] / ours[seconds] / peer["rows"] * peer[seconds] for ours, peer in paired]
        cpu = [ours[cpu_seconds] / ours["rows"] / peer[cpu_seconds] * peer["rows"] for ours, peer in paired]
        lines.append(f"| {first} / {name} | {conclude(speed, 'faster', 'slower')} | {conclude(cpu, 'more', 'less')} |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Return the median and the range, as text of three digits."""
    median, least, most = (
        f"{value:.3g}" if value < 1_000 else f"{value:,.0f}"
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({least} to {most})"


def conclude(ratios: Sequence[float], above: str, below: str) -> str:
    """Return the spread of ratios, and the conclusion if all rounds agree on it.

    Args:
      above, below: the conclusions from ratios above and below 1.
    """
    if len(ratios) < LEAST_ROUNDS:
        return f"{spread(ratios)}: no conclusion from fewer than {LEAST_ROUNDS} rounds"
    median, least, most = statistics.median(ratios), min(ratios), max(ratios)
    if least <= 1 <= most:
        return f"{spread(ratios)}: no conclusion; needs below {median / most:.2f} or above {median / least:.2f}"
    return f"{spread(ratios)}: {above if least > 1 else below}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all, if none is named")
    parser.add_argument("--contenders", help=f"one group instead, by commas, of {', '.join(CONTENDERS)}")
    parser.add_argument("--shape", choices=SHAPES, default="people", help="of the rows, for --contenders and --before")
    parser.add_argument("--before", type=pathlib.Path, help="another checkout: how this one compares, in all formats")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("bench-data"))
    parser.add_argument("--rows", type=int, default=20_000_000, help="or as many as a suite or shape allows")
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=7, help="rounds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", choices=["small", "large"], default="small", help="for the shape people")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the job file, for ours")
    args = parser.parse_args()
    for suite in args.suites:
        if suite not in SUITES:
            parser.error(f"no suite {suite!r}; there are: {', '.join(SUITES)}")
    groups = [Group(tuple(args.contenders.split(",")), args.shape)] if args.contenders else []
    if args.before:
        of_before = {
            f"{name}@before": dataclasses.replace(contender, checkout=args.before.resolve())
            for name, contender in CONTENDERS.items()
            if isinstance(contender, Ours)
        }
        CONTENDERS.update(of_before)
        groups = groups or [Group((name.removesuffix("@before"), name), args.shape) for name in of_before]
    if not groups:
        groups = [group for suite in args.suites or SUITES for group in SUITES[suite]]
    for name in (name for group in groups for name in group.contenders):
        if name not in CONTENDERS:
            parser.error(f"no contender {name!r}; there are: {', '.join(CONTENDERS)}")

    print(describe(), flush=True)
    for group in groups:
        rows = min(args.rows, group.most_rows, SHAPES[group.shape].most_rows)
        settings = tuple(args.set)
        bench = Bench(args.folder.resolve(), rows, args.shards, args.threads, args.model, settings, group.shape)
        compare(group.contenders, bench, args.pairs, lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
