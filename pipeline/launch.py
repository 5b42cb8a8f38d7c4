"""Runs a job: finds out whether it is done, begun or changed; launches it; tells what came out."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from pipeline import logs
from pipeline.begin import Overrun, Standing, clock, is_read, new_run, pinned, plan_run
from pipeline.build import Steps, build
from pipeline.job import Job, JobError
from pipeline.preflight import Prepared, fingerprint, prepare
from pipeline.progress import watch
from pipeline.refuse import refuse_unusable
from pipeline.trial import load
from runners import local
from transforms import storage
from transforms.commit import Overtaken, decide, roll_forward
from transforms.manifest import DONE as PUBLISHED
from transforms.manifest import clean_up, published, read_manifest
from transforms.model import import_tensorflow
from transforms.plan import RunFolder, read_plan
from transforms.read import STOP
from transforms.write import WriteSettings, reset_reject_count

log = logging.getLogger(__name__)

DONE, OVER = 0, 3
"""Exit codes."""

_LOOKS = 10
_LONGEST_WAIT_S = 60
_LOOKS_EVERY_S = 0.1


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      code: the exit code.
      manifest: what was published, or what stands in its place over budget.
      already: whether it was finished before this command, or by another.
      by_another: whether another launch published it while this one was at work on it.
      seconds: what this command took, by step.
    """

    code: int
    manifest: Mapping[str, Any]
    already: bool = False
    by_another: bool = False
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


def run(
    job: Job,
    beam_args: Sequence[str] = (),
    replace: bool = False,
    show_progress: Callable | None = None,
    restart: bool = False,
    keep_replaced: bool = False,
) -> Outcome:
    """Runs a job to its verdict.

    Args:
      beam_args: Beam's own options.
      replace: whether to publish over a finished run.
      show_progress: see `pipeline.progress.watch`.
      restart: whether to discard a run that is begun and not finished.
      keep_replaced: see `transforms.manifest.clean_up`.

    Raises:
      JobError: nothing was launched.
      Exception: it was, and did not come to a verdict; see `pipeline.errors`.
    """
    if problems := local.check_options(beam_args):
        raise JobError(problems)
    seconds: dict[str, float] = {}
    logs.name_run(new := new_run())
    at_first = Standing.of(job.output.path)
    with clock(seconds, "check"):
        prepared = prepare(job)
        print_ = fingerprint(job, prepared.files, prepared.model_hash, prepared.steps.call.signature.name)
    launch = _Launch(job, prepared, print_, new, beam_args, keep_replaced, show_progress, seconds)
    discards = at_first.allowing(replace, restart)
    for _ in range(_LOOKS):
        standing = Standing.of(job.output.path, discards)
        with contextlib.suppress(Overrun):
            try:
                return launch.go(standing)
            except Overrun:
                raise
            except Exception as error:
                # Of two launches at once, the other may have published, and cleaned up under our feet.
                now = Standing.of(job.output.path, discards)
                if (manifest := now.finished(print_)) is None or _is(at_first.manifest, manifest):
                    raise
                log.debug("another launch was faster", exc_info=error)
                return Outcome(DONE, manifest, already=True, by_another=True)
    raise Overtaken(f"{job.output.path}: other launches keep changing what is begun here: run one at a time")


def _is(a: Mapping[str, Any] | None, b: Mapping[str, Any]) -> bool:
    return a is not None and a["run"] == b["run"]


@dataclasses.dataclass
class _Launch:
    job: Job
    prepared: Prepared
    print_: Mapping[str, str]
    new: str
    beam_args: Sequence[str]
    keep_replaced: bool
    show_progress: Callable | None
    seconds: dict[str, float]

    def go(self, standing: Standing) -> Outcome:
        if (manifest := standing.finished(self.print_)) is not None:
            clean_up(standing.output, manifest)
            return Outcome(DONE, manifest, already=True)
        folder = standing.begun(self.print_)
        if folder is None or not storage.exists(folder.plan):
            if folder is None and (refused := refuse_unusable(self.prepared, self.print_, standing)):
                return Outcome(OVER, refused)
            folder, steps = _begin(self.prepared, self.print_, standing, self.new, self.seconds)
        else:
            steps = pinned(self.prepared, read_plan(folder))
        logs.name_run(folder.run)
        try:
            with storage.hold(folder.plan):
                if not is_read(folder):
                    _launch(
                        self.job, folder, steps, self.beam_args, self.show_progress, self.seconds, self.keep_replaced
                    )
                return dataclasses.replace(self._verdict(folder, steps), seconds=self.seconds)
        except Exception as error:
            if storage.exists(folder.path) or published(folder.output, folder.run):
                raise
            raise Overtaken(f"run {folder.run} was discarded by another launch: nothing of it is published") from error

    def _verdict(self, folder: RunFolder, steps: Steps) -> Outcome:
        manifest = read_manifest(folder.output)
        if manifest is None or manifest["run"] != folder.run:
            verdict = decide(folder, self.job.rejects.as_budget(), steps.outputs.schema)
            manifest = roll_forward(folder, verdict, self.keep_replaced)
        return Outcome(DONE if manifest["verdict"] == PUBLISHED else OVER, manifest)


def _begin(
    prepared: Prepared, print_: Mapping[str, str], standing: Standing, new: str, seconds: dict[str, float]
) -> tuple[RunFolder, Steps]:
    with clock(seconds, "import"):
        import_tensorflow()
    with clock(seconds, "load"):
        servable = load(prepared)
    return plan_run(prepared, print_, servable, standing, seconds, new)


def _launch(
    job: Job,
    folder: RunFolder,
    steps: Steps,
    beam_args: Sequence[str],
    show_progress: Callable | None,
    seconds: dict[str, float],
    keep_replaced: bool,
) -> None:
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
            lambda pipeline: build(pipeline, steps, write, plan["shards"], budget, keep_replaced),
            job.engine.worker_count,
            beam_args,
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
