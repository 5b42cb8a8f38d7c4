"""The beginning of a run: what the output folder holds already, and the plan of a new run."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import logging
import platform
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.build import Steps
from pipeline.job import JobError
from pipeline.preflight import Prepared
from pipeline.trial import choose_batch, try_rows
from transforms import storage
from transforms.manifest import CURRENT, FAILED, read_json, read_manifest
from transforms.model import Servable
from transforms.plan import STAGING, RunFolder, read_plan, split_files, write_plan

log = logging.getLogger(__name__)

_PACKAGES = ("beam-score", "apache-beam", "tensorflow", "tfx-bsl", "pyarrow", "polars", "numpy")


_REMEDY = "write elsewhere, or add --replace"


class Changed(JobError):
    """The output folder holds another job."""


@contextlib.contextmanager
def clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Notes how long the body takes."""
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 2)


def new_run() -> str:
    """An id that sorts by time."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


@dataclasses.dataclass(frozen=True)
class Standing:
    """What an output folder holds, as the files of the protocol tell it.

    Attributes:
      output: the folder.
      manifest: of the run that is published there.
      failed: what the last run that was over budget left.
      current: of the run that is begun and has no final verdict: its id and fingerprint.
    """

    output: str
    manifest: Mapping[str, Any] | None
    failed: Mapping[str, Any] | None
    current: Mapping[str, Any] | None

    @classmethod
    def of(cls, output: str) -> Standing:
        root = Path(output)
        return cls(output, read_manifest(output), read_json(root / FAILED), read_json(root / STAGING / CURRENT))

    @property
    def runs(self) -> list[str]:
        """All that a new run replaces."""
        found = (s["run"] for s in (self.manifest, self.failed, self.current) if s is not None)
        return sorted(set(found))

    def finished(self, print_: Mapping[str, str]) -> Mapping[str, Any] | None:
        """The manifest of this very job; raises Changed for another job's."""
        if self.manifest is not None and (changed := _differences(self.manifest["fingerprint"], print_)):
            raise Changed([f"{self.output} holds a finished run of another job ({changed} changed): {_REMEDY}"])
        return self.manifest

    def begun(self, print_: Mapping[str, str], replace: bool) -> RunFolder | None:
        """The run of this job that is to be gone on with; raises Changed for another job's.

        With `replace` only one that was begun to replace what is published here.
        """
        if self.current is None:
            return None
        folder = RunFolder(self.output, self.current["run"])
        changed = _differences(self.current["fingerprint"], print_)
        if changed and not replace:
            raise Changed(
                [f"{self.output} holds run {folder.run} of another job, not finished ({changed} changed): {_REMEDY}"]
            )
        try:
            plan = read_plan(folder)
        except FileNotFoundError:
            return None
        if replace and (changed or self.manifest is None or self.manifest["run"] not in plan["replaces"]):
            return None
        return folder


def _differences(a: Mapping[str, str], b: Mapping[str, str]) -> str:
    return ", ".join(name for name in {**a, **b} if a.get(name) != b.get(name))


def plan_run(
    prepared: Prepared,
    print_: Mapping[str, str],
    servable: Servable,
    standing: Standing | None = None,
    seconds: dict[str, float] | None = None,
    run: str | None = None,
) -> tuple[RunFolder, Steps]:
    """Tries the job on its first rows, chooses how the model is called, and freezes the plan.

    Where another launch of the same job was first, its plan is the plan.

    Args:
      print_: see `pipeline.preflight.fingerprint`.
      standing: what the output folder holds, all of which is replaced.
      seconds: gets what the steps took.
      run: id for it.
    """
    job, seconds = prepared.job, {} if seconds is None else seconds
    standing = standing or Standing.of(job.output.path)
    with clock(seconds, "try rows"):
        choice = choose_batch(prepared, servable, try_rows(prepared, servable))
    log.info("batch_rows %d, XLA %s: %s", choice.batch_rows, "on" if choice.compiled else "off", choice.why)
    steps = dataclasses.replace(prepared.steps, call=choice.apply(prepared.steps.call))
    folder = RunFolder(job.output.path, run or new_run())
    with clock(seconds, "plan"):
        files = [(f.path, f.size) for f in prepared.files]
        splits = split_files(files, steps.read, job.engine.split_bytes, job.engine.worker_count)
    call = steps.call
    engine = {
        "runner": job.engine.runner,
        "workers": job.engine.worker_count,
        "batch_rows": call.batch_rows,
        "xla": call.compiled,
        "why": choice.why,
        "intra_op_threads": call.intra_op_threads,
    }
    write_plan(folder, splits, describe(prepared, print_, standing) | {"engine": engine, "start_up_s": seconds})
    current = Path(job.output.path, STAGING, CURRENT)
    content = json.dumps({"run": folder.run, "fingerprint": print_}).encode()
    if standing.current is not None:
        storage.replace(current, content)
        storage.remove_folder(RunFolder(job.output.path, standing.current["run"]).path)
    elif not storage.create_if_absent(current, content):
        storage.remove_folder(folder.path)
        folder = Standing.of(job.output.path).begun(print_, replace=bool(standing.manifest))
        if folder is None:
            raise FileNotFoundError(current)  # the other one has just finished
        steps = pinned(prepared, read_plan(folder))
    elif (published := read_manifest(job.output.path)) is not None and published["run"] not in standing.runs:
        # The other one has finished while this one planned.
        storage.remove(current)
        storage.remove_folder(folder.path)
        storage.remove_if_empty(current.parent)
        raise FileNotFoundError(current)
    return folder, steps


def describe(prepared: Prepared, print_: Mapping[str, str], standing: Standing) -> dict[str, Any]:
    """What is on record of a job, whatever comes of it."""
    job = prepared.job
    return {
        "fingerprint": print_,
        "replaces": standing.runs,
        "job": job.as_json() | {"output": job.output.model_dump(mode="json")},
        "model": {
            "path": prepared.model.path,
            "version": prepared.model.version,
            "sha256": prepared.model_hash,
            "signature": prepared.steps.call.signature.name,
        },
        "versions": versions(),
        **inputs_on_record(prepared),
        "parent": prepared.parent and prepared.parent.on_record(),
    }


def inputs_on_record(prepared: Prepared) -> dict[str, Any]:
    """The files that rows are from, as they were at launch; and the headers of those that have one, each once."""
    texts = list(dict.fromkeys(prepared.headers.values()))
    place = {text: at for at, text in enumerate(texts)}
    files = [dataclasses.asdict(f) | {"predicted_before": 0} for f in prepared.files]
    if prepared.parent is not None:
        files = prepared.parent.files_on_record()
    return {"headers": texts, "inputs": [f | {"header": place.get(prepared.headers.get(f["path"]))} for f in files]}


def pinned(prepared: Prepared, plan: Mapping[str, Any]) -> Steps:
    """The steps, with the choices of the launch that made the plan."""
    engine = plan["engine"]
    call = dataclasses.replace(
        prepared.steps.call,
        batch_rows=engine["batch_rows"],
        compiled=engine["xla"],
        intra_op_threads=engine["intra_op_threads"],
    )
    return dataclasses.replace(prepared.steps, call=call)


def versions() -> dict[str, str]:
    """Of Python and the libraries that results may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def is_read(folder: RunFolder) -> bool:
    """Whether every split of the plan has its receipt: only the verdict is still to come."""
    return all(folder.has_receipt(split) for split in range(read_plan(folder)["splits"]))
