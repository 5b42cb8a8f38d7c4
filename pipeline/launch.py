"""Runs a job: finds out whether it is done, begun or changed; launches it; tells what came out."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import logging
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.build import Steps, build
from pipeline.job import Job, JobError
from pipeline.preflight import Prepared, fingerprint, prepare
from pipeline.progress import watch
from pipeline.trial import choose_batch, load, try_rows
from runners import local
from transforms import storage
from transforms.commit import FAILED, OVER_BUDGET, PUBLISH, decide, read_manifest, roll_forward
from transforms.model import import_tensorflow
from transforms.plan import STAGING, RunFolder, read_plan, split_files, write_plan
from transforms.read import STOP
from transforms.write import WriteSettings, reset_reject_count

log = logging.getLogger(__name__)

DONE, JOB_FAILED, WRONG_JOB, OVER = 0, 1, 2, 3
"""Exit codes."""

_PACKAGES = ("beam-score", "apache-beam", "tensorflow", "tfx-bsl", "pyarrow", "polars", "numpy")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      code: the exit code.
      manifest: what was published, or what stands in its place over budget; None where it failed.
      already: whether it was finished before this command.
      seconds: what the start-up took, by step.
    """

    code: int
    manifest: Mapping[str, Any] | None
    already: bool = False
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Changed(JobError):
    """The output folder holds another job."""


def run(job: Job, beam_args: Sequence[str] = (), replace: bool = False, show_progress: Callable | None = None) -> Outcome:
    """Runs a job to its verdict.

    Args:
      beam_args: Beam's own options.
      replace: whether to run it anew where the output folder holds a finished or another job.
      show_progress: see `pipeline.progress.watch`.

    Raises:
      JobError: nothing was launched.
      Exception: it was, and did not come to a verdict; see `pipeline.errors`.
    """
    seconds: dict[str, float] = {}
    with _clock(seconds, "check"):
        # TensorFlow takes seconds to import, most of it reading from disk: beside the checks.
        importing = threading.Thread(target=import_tensorflow, daemon=True)
        importing.start()
        prepared = prepare(job)
        print_ = fingerprint(job, prepared.files, prepared.model_hash, prepared.steps.call.signature.name)
    if not replace:
        standing = read_manifest(job.output.path)
        if standing is not None:
            if changed := _differences(standing["fingerprint"], print_):
                raise Changed([f"{job.output.path} holds a finished run of another job ({', '.join(changed)} changed): write elsewhere, or add --replace"])
            return Outcome(DONE, standing, already=True)
    folder = None if replace else _begun(job, print_)
    if folder is not None:
        log.info("going on with run %s", folder.run)
        steps = _pinned(prepared, read_plan(folder))
        importing.join()
    else:
        with _clock(seconds, "import"):
            importing.join()
        with _clock(seconds, "load"):
            servable = load(prepared)
        folder, steps = _plan(prepared, print_, servable, seconds, replace)
    outcome = _launch(job, folder, steps, beam_args, show_progress, seconds)
    return dataclasses.replace(outcome, seconds=seconds)


@contextlib.contextmanager
def _clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 2)


def _differences(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    return [name for name in {**a, **b} if a.get(name) != b.get(name)]


def _begun(job: Job, print_: Mapping[str, str]) -> RunFolder | None:
    """The run of this job that was begun and not published; raises Changed for another job's."""
    path = Path(job.output.path, STAGING, "current.json")
    try:
        current = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    folder = RunFolder(job.output.path, current["run"])
    if changed := _differences(current["fingerprint"], print_):
        raise Changed([f"{job.output.path} holds run {folder.run} of another job, not finished ({', '.join(changed)} changed): write elsewhere, or add --replace"])
    return folder if (folder.path / "plan.json").exists() else None


def _pinned(prepared: Prepared, plan: Mapping[str, Any]) -> Steps:
    """The steps, with the choices of the launch that made the plan."""
    engine = plan["engine"]
    call = dataclasses.replace(prepared.steps.call, batch_rows=engine["batch_rows"], compiled=engine["xla"], intra_op_threads=engine["intra_op_threads"])
    return dataclasses.replace(prepared.steps, call=call)


def _plan(prepared: Prepared, print_: Mapping[str, str], servable, seconds: dict[str, float], replace: bool) -> tuple[RunFolder, Steps]:
    job = prepared.job
    with _clock(seconds, "try rows"):
        trial = try_rows(prepared, servable)
        choice = choose_batch(prepared, servable, trial)
    log.info("batch_rows %d, XLA %s: %s", choice.batch_rows, "on" if choice.compiled else "off", choice.why)
    steps = dataclasses.replace(prepared.steps, call=choice.apply(prepared.steps.call))
    with _clock(seconds, "plan"):
        files = [(f.path, f.size) for f in prepared.files]
        splits = split_files(files, steps.read, job.engine.split_bytes, job.engine.worker_count)
        header = {
            "fingerprint": print_,
            "job": job.as_json() | {"output": job.output.model_dump(mode="json")},
            "model": {
                "path": prepared.model.path,
                "version": prepared.model.version,
                "sha256": prepared.model_hash,
                "signature": steps.call.signature.name,
            },
            "engine": {
                "runner": job.engine.runner,
                "workers": job.engine.worker_count,
                "batch_rows": choice.batch_rows,
                "xla": choice.compiled,
                "why": choice.why,
                "intra_op_threads": steps.call.intra_op_threads,
            },
            "versions": versions(),
            "inputs": [dataclasses.asdict(f) for f in prepared.files],
        }
        folder = RunFolder(job.output.path, _new_run())
        header = write_plan(folder, splits, header)
        current = Path(job.output.path, STAGING, "current.json")
        content = json.dumps({"run": folder.run, "fingerprint": print_}).encode()
        if replace:
            storage.replace(current, content)
        elif not storage.create_if_absent(current, content):
            # Another launch of the same job was first: work on its plan.
            storage.remove_folder(folder.path)
            folder = _begun(job, print_)
            steps = _pinned(prepared, read_plan(folder))
    return folder, steps


def _new_run() -> str:
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def versions() -> dict[str, str]:
    """Of Python and the libraries that results may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _launch(job: Job, folder: RunFolder, steps: Steps, beam_args, show_progress, seconds: dict[str, float]) -> Outcome:
    plan = read_plan(folder)
    budget = job.rejects.as_budget()
    write = WriteSettings(folder, steps.outputs.schema, job.output.format, job.output.not_finite, job.rejects.stop_after)
    STOP.clear()
    reset_reject_count()
    before = set(threading.enumerate())
    began = time.perf_counter()
    try:
        with watch(folder, plan["splits"], show_progress):
            local.run(
                lambda pipeline: build(pipeline, steps, write, plan["shards"], budget),
                job.engine.worker_count,
                beam_args,
            )
    except BaseException:
        # Beam's other workers go on after one has raised: none may outlive this call.
        STOP.set()
        _wait_for(before)
        raise
    seconds["run"] = round(time.perf_counter() - began, 2)
    return _verdict(job, folder, steps)


def _wait_for(before: set[threading.Thread], most_s: float = 60) -> None:
    until = time.monotonic() + most_s
    for thread in threading.enumerate():
        if thread not in before and thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0, until - time.monotonic()))


def _verdict(job: Job, folder: RunFolder, steps: Steps) -> Outcome:
    manifest = read_manifest(job.output.path)
    if manifest is not None and manifest["run"] == folder.run:
        return Outcome(DONE, manifest)
    verdict = decide(folder, job.rejects.as_budget())
    if verdict["decision"] == PUBLISH:
        return Outcome(DONE, roll_forward(folder, verdict, steps.outputs.schema))
    assert verdict["decision"] == OVER_BUDGET
    return Outcome(OVER, json.loads(Path(job.output.path, FAILED).read_bytes()))
