"""Runs a job: checks it, plans it, launches the pipeline and waits for it."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import apache_beam as beam

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.chain import Steps, build
from beam_score.pipeline.prepare.memory import check_fits
from beam_score.pipeline.prepare.output_place import check_room
from beam_score.pipeline.prepare.preflight import prepare
from beam_score.pipeline.prepare.replay import Parent
from beam_score.pipeline.prepare.trial import load
from beam_score.pipeline.process import interrupts, logs
from beam_score.pipeline.run.begin import clock, is_read, new_run, pinned, plan_run, settings_on_record
from beam_score.pipeline.run.jobs_elsewhere import (
    forget_if_over,
    note,
    others_at_work,
    problems_of_discarding,
    wait_for,
)
from beam_score.pipeline.run.protocol import Outcome, Work, bring_to_verdict
from beam_score.pipeline.run.refuse import refuse_unusable
from beam_score.pipeline.run.standing import Standing
from beam_score.pipeline.run.waiting import in_thread, wait_for_end, wait_for_workers
from beam_score.pipeline.run.watch import watch
from beam_score.runners.choose import engine_of
from beam_score.runners.engine import Engine
from beam_score.transforms.common.stopping import Stopping
from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.attempt import WriteSettings
from beam_score.transforms.ledger.folder import RunFolder, read_plan
from beam_score.transforms.ledger.receipt import Counts
from beam_score.transforms.ledger.receipts import collect
from beam_score.transforms.model.servable import import_tensorflow
from beam_score.transforms.rows.reject_count import RejectCount

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 60
_LONGEST_WAIT_TO_STOP_S = 10


def run(
    job: Job,
    beam_args: Sequence[str] = (),
    replace: bool = False,
    show_progress: Callable | None = None,
    restart: bool = False,
    keep_replaced: bool = False,
    replace_if_changed: bool = False,
    parent: Parent | None = None,
    on_planned: Callable[[], None] = lambda: None,
) -> Outcome:
    """Run a job until it has a verdict.

    Args:
      beam_args: Beam's own options.
      replace: publish over a finished run.
      show_progress: see `pipeline.run.watch.watch`.
      restart: discard an unfinished run.
      keep_replaced: see `transforms.ledger.publication.roll_forward`.
      replace_if_changed: replace another version of this job, finished or not.
      parent: for a replay, the run whose dead letters are the input.
      on_planned: called once the plan exists, before any row is scored.

    Raises:
      JobError: nothing was launched.
      GoesOnElsewhere: the job was launched, and the caller asked not to wait for it.
      Exception: the job was launched and reached no verdict; see `pipeline.process.errors`.
    """
    engine = engine_of(job.engine, beam_args)
    seconds: dict[str, float] = {}
    logs.name_run(new := new_run())
    output = job.output.path
    # Before the checks: the command may only replace runs that exist when it is given.
    standing = Standing.of(output)
    discards = standing.allowing(replace, restart)
    with clock(seconds, "check"):
        problems = [*engine.problems(), *engine.place_problems(job.places)]
        if restart and standing.current is not None:
            problems += problems_of_discarding(RunFolder(output, standing.current["run"]))
        prepared = prepare(job, parent, problems)
        check_fits(prepared, engine)
        print_ = prepared.fingerprint()
        if parent is not None:
            print_["parent"] = parent.fingerprint()
        if replace_if_changed:
            discards = discards | standing.others(print_)
            if standing.current is not None and standing.current["run"] in discards and not restart:
                problems = problems_of_discarding(RunFolder(output, standing.current["run"]))
                if problems:
                    raise JobError(problems)

    def imported() -> None:
        if "import" not in seconds:
            with clock(seconds, "import"):
                import_tensorflow()

    def plan(standing: Standing) -> RunFolder:
        check_room(prepared)
        imported()
        with clock(seconds, "load"):
            servable = load(prepared)
        return plan_run(prepared, print_, servable, standing, seconds, new)

    def score(folder: RunFolder) -> None:
        on_planned()
        logs.name_run(folder.run)
        if others := others_at_work(folder, engine.elsewhere(folder.run)):
            with clock(seconds, "wait"), watch(folder, show_progress):
                wait_for(others)
            if is_read(folder):
                return
        imported()  # in the main thread: beside other threads, in a worker's thread, importing takes twice as long
        steps = pinned(prepared, read_plan(folder))
        _launch(job, folder, steps, engine, show_progress, seconds, keep_replaced)

    work = Work(
        output=output,
        fingerprint=print_,
        refuse=lambda standing: refuse_unusable(prepared, print_, standing),
        plan=plan,
        score=score,
        budget=job.rejects.as_budget(),
        schema=prepared.steps.outputs.schema,
        keep_replaced=keep_replaced,
        files=() if parent else prepared.files,
        settings=settings_on_record(job),
    )
    return dataclasses.replace(bring_to_verdict(work, discards), seconds=seconds)


def _launch(
    job: Job,
    folder: RunFolder,
    steps: Steps,
    engine: Engine,
    show_progress: Callable | None,
    seconds: dict[str, float],
    keep_replaced: bool,
) -> None:
    plan = read_plan(folder)
    log.info("%d splits of %d files", plan["splits"], len(plan["inputs"]))
    budget = job.rejects.as_budget()
    write = WriteSettings(
        folder,
        steps.outputs.schema,
        job.output.format,
        job.output.not_finite,
        RejectCount(most := job.rejects.stop_after, {} if most is None else _rejected_before(folder, plan)),
        steps.call.bounds,
    )
    stopping = Stopping()

    def work() -> None:
        def put(pipeline: beam.Pipeline) -> beam.PCollection:
            return build(pipeline, steps, write, plan["shards"], budget, keep_replaced, engine.chains, stopping)

        engine.run(put, folder.run)

    cpu, running = time.process_time(), None
    submitted = engine.elsewhere(folder.run)
    if submitted is not None:
        note(folder, submitted)
    try:
        # In a thread: Beam handles a signal only after all its workers have ended by themselves.
        with clock(seconds, "run"), watch(folder, show_progress):
            running = in_thread(work)
            with interrupts.first_sigint_calls(stopping.after_splits.set) if engine.in_one_process else nullcontext():
                wait_for_end(running, stopping)
            running.result()
    except BaseException as error:
        stopping.now.set()
        engine.stop()
        # Beam's other workers continue after one has raised: none may outlive this call.
        wait_for_workers(running, _LONGEST_WAIT_S if isinstance(error, Exception) else _LONGEST_WAIT_TO_STOP_S)
        if submitted is not None:
            forget_if_over(folder, submitted)
        raise
    if submitted is not None:
        forget_if_over(folder, submitted)
    seconds["run_cpu"] = round(time.process_time() - cpu, 2)
    if stopping.after_splits.is_set():
        finished = sum(receipt is not None for receipt in collect(folder, plan["splits"]))
        if storage.exists(folder.plan) and finished < plan["splits"]:
            raise interrupts.Drained(
                f"stopped: {finished} of {plan['splits']} splits are done; the same command continues from here"
            )


def _rejected_before(folder: RunFolder, plan: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the number of rows that earlier launches of a run rejected, by reason."""
    done = [receipt for receipt in collect(folder, plan["splits"]) if receipt is not None]
    return Counts.of(done).reasons
