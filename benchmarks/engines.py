"""The same job on every engine: rows per second from the first split read to the last receipt, and start-up time.

    python benchmarks/engines.py [--rows 60000000] [--pairs 7] [--engines local flink prism]

Runs are interleaved: one of each engine per round, each a separate command, all over the same files and with the same
number of threads. A ratio compares two runs of one round. Start-up is the remaining time of a command: imports, checks,
the model, the engine, publication. All runs call the model in the same way, because the choice of `auto` may differ
from launch to launch. Flink takes its job server from BEAM_SCORE_FLINK_JAR; Prism is found by BEAM_SCORE_PRISM, or on
the path. Prints a line of JSON per run, then a summary.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import shutil
import statistics

from contenders import Bench, Ours, score

_SAME = ("model.batch_rows=8192", "engine.xla=off")


def timed(bench: Bench, engine: str, rejects: bool) -> dict[str, float]:
    """Time one run in an empty output folder."""
    out = bench.folder / "out" / engine
    told = score(Ours(bad=rejects), dataclasses.replace(bench, settings=(*_SAME, f"engine.runner={engine}")), out)
    shutil.rmtree(out)
    return {
        "rows_per_s": round(told["rows"] / told["seconds"]),
        "scoring_s": told["seconds"],
        "start_up_s": round(told["whole_seconds"] - told["seconds"], 2),
        "cpu_seconds": told["cpu_seconds"],
    }


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, object]]:
    """Return medians, and the ratio of rows/s to the first engine, by round."""
    first = next(iter(runs.values()))
    told: dict[str, dict[str, object]] = {}
    for engine, of in runs.items():
        ratios = sorted(one["rows_per_s"] / other["rows_per_s"] for one, other in zip(of, first, strict=True))
        told[engine] = {
            "rows_per_s": statistics.median(run["rows_per_s"] for run in of),
            "start_up_s": statistics.median(run["start_up_s"] for run in of),
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bad", action="store_true", help="with bad rows among them")
    parser.add_argument("--engines", nargs="+", default=["local", "flink", "prism"])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("bench-data"))
    arguments = parser.parse_args()
    bench = Bench(arguments.folder, arguments.rows, arguments.shards, arguments.threads, "small")
    runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in arguments.engines}
    for _ in range(arguments.pairs):
        for engine in arguments.engines:
            runs[engine].append(timed(bench, engine, arguments.bad))
            print(json.dumps({"engine": engine, **runs[engine][-1]}), flush=True)
    print(json.dumps(summary(runs), indent=1))


if __name__ == "__main__":
    main()
