"""Cost of a launch over many small files: each step up to the first split that is read.

    python benchmarks/launch.py --files 50000
    python benchmarks/launch.py --files 50000 --format parquet
    python benchmarks/launch.py --files 50000 --store --delay-ms 40

Creates the files and a model once, under --folder, and takes a job over them through the steps of `beam-score run` in a
separate process, with the same code as a run. Prints JSON: seconds per step, seconds from the start of the process to
the first split read, peak memory until then, splits, and the bytes of the graph that is sent to an engine. With --store
the files are on fake-gcs-server, where each request is delayed and counted; the output is on local disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

HERE = pathlib.Path(__file__).parent
ROWS = 10
LINKS = 30_000  # links to one file; some file systems allow no more than 65,000


def make_files(folder: pathlib.Path, format_: str, files: int) -> pathlib.Path:
    """Return a folder with this many files of the same few rows; create it if it is missing."""
    from make_data import make_data

    made = folder / f"launch-{format_}-{files}"
    if made.exists():
        return made
    unfinished = made.with_name(made.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    make_data(unfinished, format_, ROWS, 1)
    (first,) = unfinished.iterdir()
    content = first.read_bytes()
    first.unlink()
    for number in range(files):
        (unfinished / f"part-{number:06}.{format_}").write_bytes(content)
    return unfinished.rename(made)


def make_model(folder: pathlib.Path) -> pathlib.Path:
    """Return the small model of the other benchmarks; create it if it is missing."""
    version = folder / "models" / "small" / "1"
    if not (version / "saved_model.pb").exists():
        command = [sys.executable, HERE / "make_model.py", "--name", "small", version]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return version.parent


def settings(data: pathlib.Path | str, model: pathlib.Path, output: pathlib.Path, workers: int) -> dict[str, Any]:
    """Return a job file as plain data."""
    return {
        "input": {"files": str(data)},
        "model": {"path": str(model)},
        "columns": {
            "age": {"dtype": "float32", "range": [0, 150]},
            "income": {"dtype": "float32", "range": [0, None]},
            "score": {"dtype": "float32", "range": [0, 1]},
        },
        "inputs": {"inputs": {"pack": ["age", "income", "score"]}},
        "output": {"path": str(output), "keep": ["id"]},
        "engine": {"workers": workers},
    }


def peak_rss_mb() -> float:
    """Return the peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(job_settings: dict[str, Any]) -> dict[str, Any]:
    """Time the steps of a launch, and the run itself; call in a new process."""
    began = time.perf_counter()
    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}
    peaks: dict[str, float] = {}

    import apache_beam as beam
    from far_store import requests_so_far

    from beam_score.pipeline.job.job import parse_job
    from beam_score.pipeline.prepare import preflight, trial
    from beam_score.pipeline.prepare.chain import build
    from beam_score.pipeline.run import begin
    from beam_score.pipeline.run.output_state import OutputState
    from beam_score.runners.choose import engine_of
    from beam_score.transforms.durable import disk
    from beam_score.transforms.ledger.attempt import WriteSettings
    from beam_score.transforms.ledger.folder import read_plan
    from beam_score.transforms.listing.files import list_files
    from beam_score.transforms.stores.objects import is_object

    class FirstReceipt(disk.Disk):
        """Records when the split of the first receipt was begun, and the peak memory at that time."""

        known: dict[str, float] | None = None

        def link(self, source, target):
            if target.parent.name == "receipts" and self.known is None:
                ago = time.time() - json.loads(source.read_bytes())["began"]
                self.known = {"first_split_s": time.perf_counter() - began - ago, "peak_rss_mb": peak_rss_mb()}
                print(f"{seconds}, {self.known}", file=sys.stderr)
            super().link(source, target)

    disk.use(first := FirstReceipt())
    seconds["imports"] = time.perf_counter() - began

    def timed(name, function, *arguments):
        started, busy = time.perf_counter(), time.process_time()
        result = function(*arguments)
        seconds[name], cpu[name] = time.perf_counter() - started, time.process_time() - busy
        peaks[name] = peak_rss_mb()
        return result

    job = parse_job(job_settings)
    # `prepare` lists the files again; that time is included in its own.
    files, _ = timed("(list files)", list_files, job.input.files)
    prepared = timed("check", preflight.prepare, job)
    signature = prepared.steps.call.signature.name
    fingerprint = timed("fingerprint", preflight.fingerprint, job, prepared.files, prepared.model_hash, signature)
    servable = timed("load the model", trial.load, prepared)
    inside: dict[str, float] = {}
    folder = timed("plan", begin.plan_run, prepared, fingerprint, servable, OutputState.of(job.output.path), inside)
    seconds |= {"(try rows)": inside["try rows"], "(cut files)": inside["plan"]}
    timed("is it read", begin.is_read, folder)
    plan = timed("read the plan", read_plan, folder)
    steps = begin.pinned(prepared, plan)
    write = WriteSettings(folder, steps.outputs.schema)
    budget = job.rejects.as_budget()

    def graph(pipeline: beam.Pipeline):
        return build(pipeline, steps, write, plan["shards"], budget)

    def submitted() -> bytes:
        graph(pipeline := beam.Pipeline())
        return pipeline.to_runner_api().SerializeToString()

    size = len(timed("make the graph", submitted))
    busy = time.process_time()
    launched = time.perf_counter() - began
    asked = requests_so_far(os.environ["STORAGE_EMULATOR_HOST"]) if is_object(job.input.files[0]) else 0
    timed("whole run", engine_of(job.engine).run, graph)
    seconds["engine, to the first split"] = first.known["first_split_s"] - launched
    return {
        "files": len(files),
        "splits": plan["splits"],
        "graph_bytes": size,
        "requests_before_the_engine": asked,
        "cpu_seconds_before_the_engine": round(busy, 1),
        "seconds": {name: round(s, 2) for name, s in seconds.items()},
        "cpu_seconds": {name: round(s, 2) for name, s in cpu.items()},
        "peak_rss_mb_after": {name: round(mb) for name, mb in peaks.items()},
        **{name: round(value, 1) for name, value in first.known.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--format", choices=("csv", "jsonl", "parquet", "tfrecord"), default="csv")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("bench-data"))
    parser.add_argument("--store", action="store_true", help="whether the files are on gs://, of an emulator")
    parser.add_argument("--delay-ms", type=float, default=0, help="for which each request to it is held up")
    parser.add_argument("--profile", type=pathlib.Path, help="where to write a profile of the launching thread")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # settings of the measured process
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(measure(json.loads(arguments.job)), indent=1))
        return
    data = make_files(arguments.folder, arguments.format, arguments.files)
    output = arguments.folder / "launch-out"
    shutil.rmtree(output, ignore_errors=True)
    model = make_model(arguments.folder)
    profiler = ["-m", "cProfile", "-o", arguments.profile] if arguments.profile else []
    try:
        with stored(data, arguments.delay_ms / 1000) if arguments.store else contextlib.nullcontext(data) as files:
            job = json.dumps(settings(files, model, output, arguments.workers))
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
            subprocess.run([sys.executable, *profiler, __file__, "--job", job], check=True, env=environment)
    finally:
        shutil.rmtree(output, ignore_errors=True)


@contextlib.contextmanager
def stored(data: pathlib.Path, delay_s: float) -> Iterator[str]:
    """Yield the location of files of the same content on an emulator of Google Cloud Storage."""
    from far_store import BUCKET, emulator

    from beam_score.transforms.stores.objects import ObjectPath
    from beam_score.transforms.stores.registry import store_of

    with tempfile.TemporaryDirectory(dir=data.parent) as folder, emulator(pathlib.Path(folder), delay_s):
        first, *others = sorted(file.name for file in data.iterdir())
        store_of("gs").write(ObjectPath("gs", BUCKET, f"data/{first}"), [(data / first).read_bytes()])
        # Links in the emulator's folder: writing each file would be a request.
        kept = pathlib.Path(folder, BUCKET, "data")
        for number, name in enumerate(others, 1):
            if number % LINKS == 0:
                first = shutil.copy2(kept / first, kept / name).name
            else:
                (kept / name).hardlink_to(kept / first)
        yield f"gs://{BUCKET}/data"


if __name__ == "__main__":
    main()
