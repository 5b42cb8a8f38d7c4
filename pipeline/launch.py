"""Runs a job: finds out whether it is done, begun or changed; launches it; tells what came out."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from pipeline import logs
from pipeline.begin import Standing, clock, is_read, new_run, pinned, plan_run
from pipeline.build import Steps, build
from pipeline.job import Job, JobError
from pipeline.preflight import Prepared, fingerprint, prepare
from pipeline.progress import watch
from pipeline.refuse import refuse_unusable
from pipeline.replay import Parent
from pipeline.trial import load
from runners import local
from transforms.commit import PUBLISH, decide, roll_forward
from transforms.manifest import clean_up, read_manifest
from transforms.model import import_tensorflow
from transforms.plan import RunFolder, read_plan
from transforms.read import STOP
from transforms.write import WriteSettings, reset_reject_count

log = logging.getLogger(__name__)

DONE, OVER = 0, 3
"""Exit codes."""

_LONGEST_WAIT_S = 60
_LOOKS_EVERY_S = 0.1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      code: the exit code.
      manifest: what was published, or what stands in its place over budget.
      already: whether it was finished before this command.
      seconds: what this command took, by step.
    """

    code: int
    manifest: Mapping[str, Any]
    already: bool = False
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


def run(
    job: Job,
    beam_args: Sequence[str] = (),
    replace: bool = False,
    show_progress: Callable | None = None,
    parent: Parent | None = None,
) -> Outcome:
    """Runs a job to its verdict.

    Args:
      beam_args: Beam's own options.
      replace: whether to run it anew where the output folder holds a finished or another job.
      show_progress: see `pipeline.progress.watch`.
      parent: of a replay, the run whose dead letters are its input.

    Raises:
      JobError: nothing was launched.
      Exception: it was, and did not come to a verdict; see `pipeline.errors`.
    """
    if problems := local.check_options(beam_args):
        raise JobError(problems)
    seconds: dict[str, float] = {}
    logs.name_run(new := new_run())
    standing = Standing.of(job.output.path)
    with clock(seconds, "check"):
        prepared = prepare(job, parent)
        print_ = fingerprint(job, prepared.files, prepared.model_hash, prepared.steps.call.signature.name)
        if parent is not None:
            print_["parent"] = parent.fingerprint()
    if not replace and (manifest := standing.finished(print_)) is not None:
        clean_up(job.output.path, manifest)
        return Outcome(DONE, manifest, already=True)
    try:
        folder = standing.begun(print_, replace)
        if folder is None and (refused := refuse_unusable(prepared, print_, standing)):
            return Outcome(OVER, refused)
        if folder is not None:
            steps = pinned(prepared, read_plan(folder))
            logs.name_run(folder.run)
        else:
            folder, steps = _begin(prepared, print_, standing, new, seconds)
        if not is_read(folder):
            _launch(job, folder, steps, beam_args, show_progress, seconds)
        return dataclasses.replace(_verdict(job, folder, steps), seconds=seconds)
    except Exception:
        # Of two launches at once, the other may have published, and cleaned up under our feet.
        manifest = Standing.of(job.output.path).finished(print_)
        if manifest is None or (standing.manifest and manifest["run"] == standing.manifest["run"]):
            raise
        return Outcome(DONE, manifest, already=True)


def _begin(
    prepared: Prepared, print_: Mapping[str, str], standing: Standing, new: str, seconds: dict[str, float]
) -> tuple[RunFolder, Steps]:
    with clock(seconds, "import"):
        import_tensorflow()
    with clock(seconds, "load"):
        servable = load(prepared)
    folder, steps = plan_run(prepared, print_, servable, standing, seconds, new)
    logs.name_run(folder.run)
    return folder, steps


def _launch(job: Job, folder: RunFolder, steps: Steps, beam_args, show_progress, seconds: dict[str, float]) -> None:
    plan = read_plan(folder)
    log.info("%d splits of %d files", plan["splits"], len(plan["inputs"]))
    budget = job.rejects.as_budget()
    write = WriteSettings(
        folder, steps.outputs.schema, job.output.format, job.output.not_finite, job.rejects.stop_after
    )
    STOP.clear()
    reset_reject_count()

    def work() -> None:
        local.run(
            lambda pipeline: build(pipeline, steps, write, plan["shards"], budget), job.engine.worker_count, beam_args
        )

    cpu = time.process_time()
    try:
        # In a thread: Beam does not let go of a signal before all its workers have ended by themselves.
        with clock(seconds, "run"), watch(folder, plan["splits"], show_progress), ThreadPoolExecutor(1) as pool:
            running = pool.submit(work)
            try:
                # Polars takes SIGINT while it works in another thread, and passes it on without a wake-up.
                while not wait([running], _LOOKS_EVERY_S).done:
                    pass
                running.result()
            except BaseException:
                STOP.set()
                raise
    except BaseException:
        # Beam's other workers go on after one has raised: none may outlive this call.
        if _workers_ended():
            STOP.clear()
        raise
    seconds["run_cpu"] = round(time.process_time() - cpu, 2)


def _workers_ended() -> bool:
    """Waits until no thread is inside a step. Joining would not do: Beam keeps its threads for other work."""
    until = time.monotonic() + _LONGEST_WAIT_S
    while any(_is_at_work(thread) for thread in sys._current_frames() if thread != threading.get_ident()):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _is_at_work(thread: int) -> bool:
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("transforms."):
            return True
        frame = frame.f_back
    return False


def _verdict(job: Job, folder: RunFolder, steps: Steps) -> Outcome:
    manifest = read_manifest(job.output.path)
    if manifest is not None and manifest["run"] == folder.run:
        return Outcome(DONE, manifest)
    verdict = decide(folder, job.rejects.as_budget())
    manifest = roll_forward(folder, verdict, steps.outputs.schema)
    return Outcome(DONE if verdict["decision"] == PUBLISH else OVER, manifest)
