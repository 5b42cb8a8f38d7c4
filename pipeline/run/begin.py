"""The beginning of a run: the choice of batch size and the plan."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import logging
import platform
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.steps import Steps
from beam_score.pipeline.prepare.batch_choice import choose_batch
from beam_score.pipeline.prepare.cost import check_call_fits
from beam_score.pipeline.prepare.own_runs import mark
from beam_score.pipeline.prepare.preflight import Prepared
from beam_score.pipeline.prepare.trial import try_rows
from beam_score.pipeline.run.output_state import LostRace, OutputState
from beam_score.transforms.common.splits import Split
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import CorruptFile, seal
from beam_score.transforms.formats.reading.splitting import split_files
from beam_score.transforms.ledger.folder import RunFolder, read_plan, write_plan
from beam_score.transforms.ledger.manifest import read_manifest
from beam_score.transforms.ledger.publication import drop_current
from beam_score.transforms.ledger.receipts import all_done
from beam_score.transforms.ledger.verdict import PUBLISH, verdicts
from beam_score.transforms.model.model import PYTHON, Model
from beam_score.transforms.output.dead_letters import load_ahead

log = logging.getLogger(__name__)

_PACKAGES = ("beam-score", "apache-beam", "tensorflow", "tfx-bsl", "pyarrow", "polars", "numpy")


@contextlib.contextmanager
def clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Record the duration of the body, in seconds, under `name`."""
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 2)


def new_run() -> str:
    """Return a new run id; ids sort by time."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def plan_run(
    prepared: Prepared,
    fingerprint: Mapping[str, str],
    servable: Model,
    state: OutputState | None = None,
    seconds: dict[str, float] | None = None,
    run: str | None = None,
) -> RunFolder:
    """Try the job on its first rows, choose the batch size, and write the plan.

    Args:
      fingerprint: see `pipeline.prepare.preflight.fingerprint`.
      state: see `freeze`.
      seconds: receives the duration of each step.
      run: id for the new run.

    Raises:
      LostRace: another launch has begun or finished a run meanwhile.
    """
    job, seconds = prepared.job, {} if seconds is None else seconds
    layout = job.engine.layout
    state = state or OutputState.of(job.output.path)
    with clock(seconds, "try rows"):
        trial = try_rows(prepared, servable)
        if trial.rejected.num_rows:  # there will be more
            load_ahead()
        choice = choose_batch(prepared, servable, trial)
    check_call_fits(prepared, trial, choice.batch_rows)
    for remark in trial.remarks:
        log.warning("%s", remark)
    log.info("batch_rows %d, XLA %s: %s", choice.batch_rows, "on" if choice.compiled else "off", choice.why)
    call = choice.apply(prepared.steps.call)
    with clock(seconds, "plan"):
        files = [(f.path, f.size, f.version) for f in prepared.files]
        splits = split_files(files, prepared.steps.read, job.engine.split_bytes, layout.workers)
    engine = {
        "runner": job.engine.runner,
        "workers": layout.workers,
        "processes": layout.processes,
        "batch_rows": call.batch_rows,
        "xla": call.compiled,
        "why": choice.why,
        "intra_op_threads": call.intra_op_threads,
        "runtime": servable.runtime,
        "block_bytes": prepared.steps.read.max_block_bytes,
    }
    header = describe(prepared, fingerprint, state) | {"engine": engine, "start_up_s": seconds}
    return freeze(state, fingerprint, splits, header, run or new_run())


def freeze(
    state: OutputState, fingerprint: Mapping[str, str], splits: Sequence[Split], header: dict[str, Any], new: str
) -> RunFolder:
    """Begin a run and write its plan, which all launches of the run follow.

    If another launch of this job wrote its plan first, that plan is used.

    Args:
      state: the state of the output folder. The new run replaces everything in it, except a run of this job that has
        begun without a plan: that run gets the plan.
      header: see `transforms.steps.plan.write_plan`.
      new: id for a new run.

    Raises:
      LostRace: another launch has begun or finished a run meanwhile.
    """
    folder = state.begun(fingerprint)
    if folder is None:
        folder = RunFolder(state.output, new)
        claim(folder, fingerprint, state)
    header = header | {"replaces": [r for r in state.runs if r != folder.run]}
    # Another launch may have discarded the run, and its folder, since it was begun.
    with contextlib.suppress(FileNotFoundError):
        write_plan(folder, splits, header)
    if _current(folder) != folder.run:
        folder.remove()
        raise LostRace
    return folder


def claim(folder: RunFolder, fingerprint: Mapping[str, str], state: OutputState) -> None:
    """Make a new run the current run, before its folder is created, and discard the previous current run.

    Raises:
      LostRace: the output folder has changed since `state` was read.
    """
    staging = folder.current.parent
    try:
        for path in (staging.parent, staging):
            storage.make_folder(path)
        claimed = storage.swap(folder.current, state.known, seal({"run": folder.run, "fingerprint": fingerprint}))
    except FileNotFoundError:  # a launch that has just finished removes the empty folder
        claimed = False
    manifest = read_manifest(folder.output)
    if not claimed or (manifest is not None and manifest["run"] not in state.runs):
        # Another launch has begun or published a run while this one was preparing.
        drop_current(folder.output, [folder.run])
        storage.remove_if_empty(staging)
        raise LostRace
    if state.current is not None and state.current["run"]:
        RunFolder(folder.output, state.current["run"]).remove()


def _current(folder: RunFolder) -> str | None:
    current = OutputState.of(folder.output).current
    return None if current is None else current["run"]


def describe(prepared: Prepared, fingerprint: Mapping[str, str], state: OutputState) -> dict[str, Any]:
    """Return the record of a job that plans and manifests share."""
    job = prepared.job
    found = {
        "fingerprint": fingerprint,
        "replaces": state.runs,
        "job": settings_on_record(job),
        "model": {
            "path": prepared.model.path,
            "version": prepared.model.version,
            "sha256": prepared.model_hash,
            "signature": prepared.steps.call.signature.name,
            "independent": job.model.independent,
        },
        "versions": versions(),
        **inputs_on_record(prepared),
        "parent": prepared.source.parent_on_record(),
    }
    return found | {"mark": mark(found)}


def settings_on_record(job: Job) -> dict[str, Any]:
    """Return the settings of a job as recorded in the plan and the manifest."""
    return job.as_json() | {"output": job.output.model_dump(mode="json")}


def inputs_on_record(prepared: Prepared) -> dict[str, Any]:
    """Return the input files as they were at launch, and their headers, each distinct header once."""
    texts = list(dict.fromkeys(prepared.headers.values()))
    place = {text: at for at, text in enumerate(texts)}
    headers = {path: place[text] for path, text in prepared.headers.items()}
    files = prepared.source.files_on_record()
    return {"headers": texts, "inputs": [f | {"header": headers.get(f["path"])} for f in files]}


def pinned(prepared: Prepared, plan: Mapping[str, Any]) -> Steps:
    """Return the steps with the choices of the launch that made the plan."""
    engine = plan["engine"]
    if engine is None:
        raise CorruptFile(f"the plan of run {plan['run']} does not say how the model is called: --restart starts over")
    call = dataclasses.replace(
        prepared.steps.call,
        batch_rows=engine["batch_rows"],
        compiled=engine["xla"],
        intra_op_threads=engine["intra_op_threads"],
        runtime=engine.get("runtime", PYTHON),  # plans of earlier releases do not name it
        sha256=plan["model"]["sha256"],
    )
    read = prepared.steps.read
    read = dataclasses.replace(read, max_block_bytes=engine.get("block_bytes") or read.max_block_bytes)
    return dataclasses.replace(prepared.steps, call=call, read=read)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def is_read(folder: RunFolder) -> bool:
    """Return whether every split of the plan has its receipt, so only the verdict or the publication is missing."""
    if any(verdict["decision"] == PUBLISH for verdict in verdicts(folder)):
        return True
    return all_done(folder, read_plan(folder)["splits"])
