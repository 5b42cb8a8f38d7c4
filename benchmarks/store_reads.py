"""Cost of an object store relative to a disk: the same job over the same files, in turns.

    python benchmarks/make_data.py --rows 20000000 --format csv bench-data/csv-20000000
    python benchmarks/make_model.py bench-data/model
    python benchmarks/store_reads.py bench-data/csv-20000000 bench-data/model --pairs 7
    python benchmarks/store_reads.py bench-data/csv-20000000 bench-data/model --pairs 7 --writes --delay-ms 20

Starts fake-gcs-server, copies the files into its memory, and runs the job in interleaved pairs; the output is on local
disk, or with --writes in the same place as the input. Prints JSON: rows/s from the first split read to the last
receipt, CPU microseconds per row of the job, and of the emulator separately: it runs on the same cores, which a real
store does not.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import statistics
import tempfile
import time

from far_store import BUCKET, emulator

from beam_score.pipeline.job.job import Job, parse_job
from beam_score.pipeline.run.launch import run
from beam_score.transforms.stores.objects import ObjectPath, is_object
from beam_score.transforms.stores.registry import store_of


def upload(folder: pathlib.Path) -> str:
    """Copy the files of a folder to the store; return their location."""
    for file in sorted(folder.iterdir()):
        where = ObjectPath("gs", BUCKET, f"data/{file.name}")
        store_of(where).write(where, [file.read_bytes()])
    return f"gs://{BUCKET}/data"


def job(files: str, model: str, output: str, workers: str) -> Job:
    columns = {name: {"dtype": "float32"} for name in ("age", "income", "score")}
    return parse_job(
        {
            "input": {"files": files},
            "model": {"path": model, "batch_rows": 8192},
            "columns": columns | {"id": {"dtype": "int64"}},
            "inputs": {"inputs": {"pack": ["age", "income", "score"]}},
            "output": {"path": output, "keep": ["id"]},
            "engine": {"xla": "off", "workers": workers},
        }
    )


def cpu_seconds(process: int) -> float:
    """Return the user and system time of another process so far."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(files: str, arguments: argparse.Namespace, folder: str, server: int) -> dict[str, float]:
    """Measure one run."""
    output = f"{folder}/out"
    if is_object(folder):
        store_of("gs").remove_all([found.path for found in store_of("gs").list(ObjectPath.parse(output))])
    else:
        shutil.rmtree(output, ignore_errors=True)
    before, began = cpu_seconds(server), time.perf_counter()
    outcome = run(job(files, arguments.model, output, arguments.workers))
    rows, timings = outcome.manifest["counts"]["read"], outcome.manifest["timings"]
    return {
        "rows": rows,
        "rows_per_s": timings["rows_per_s"],
        "cpu_us_a_row": round(1e6 * outcome.seconds["run_cpu"] / rows, 3),
        "emulator_cpu_us_a_row": round(1e6 * (cpu_seconds(server) - before) / rows, 3),
        "check_s": outcome.seconds["check"],
        "plan_s": outcome.seconds["plan"],
        "whole_s": round(time.perf_counter() - began, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=pathlib.Path, help="a folder of input files")
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--writes", action="store_true", help="whether the output is on the store, too")
    parser.add_argument("--delay-ms", type=float, help="for which each request is held up, in a process of its own")
    parser.add_argument("--workers", default="auto")
    arguments = parser.parse_args()
    runs: dict[str, list[dict]] = {"disk": [], "store": []}
    delay_s = None if arguments.delay_ms is None else arguments.delay_ms / 1000
    with emulator(delay_s=delay_s) as (_, server), tempfile.TemporaryDirectory() as folder:
        folders = {"disk": folder, "store": f"gs://{BUCKET}" if arguments.writes else folder}
        files = {"disk": str(arguments.data), "store": upload(arguments.data)}
        measured(files["disk"], arguments, folder, server)  # warms up imports, the model and the disk cache
        for pair in range(arguments.pairs):
            for name in sorted(files, reverse=pair % 2 == 1):
                runs[name].append(measured(files[name], arguments, folders[name], server))
                print(json.dumps({name: runs[name][-1]}), flush=True)
    ratios = [s["rows_per_s"] / d["rows_per_s"] for s, d in zip(runs["store"], runs["disk"], strict=True)]
    told = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    print(json.dumps({"store_of_disk": {name: round(value, 3) for name, value in told.items()}}))


if __name__ == "__main__":
    main()
