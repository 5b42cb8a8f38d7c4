"""A launch of a job: checks it, plans it, scores it on an engine, and publishes the result."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Unpack

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.cost import check_fits
from beam_score.pipeline.prepare.output_place import check_room
from beam_score.pipeline.prepare.preflight import Prepared, prepare
from beam_score.pipeline.prepare.row_sources import FromDeadLetters
from beam_score.pipeline.prepare.trial import load
from beam_score.pipeline.process import interrupts, logs
from beam_score.pipeline.run.begin import clock, is_read, new_run, pinned, plan_run, settings_on_record
from beam_score.pipeline.run.options import LaunchOptions, refuse_unknown
from beam_score.pipeline.run.output_state import OutputState
from beam_score.pipeline.run.protocol import Outcome, bring_to_verdict, publish
from beam_score.pipeline.run.refuse import refuse_unusable
from beam_score.pipeline.run.remote_jobs import (
    forget_if_over,
    note,
    others_at_work,
    problems_of_discarding,
    wait_for,
)
from beam_score.pipeline.run.waiting import in_thread, wait_for_end, wait_for_workers
from beam_score.pipeline.run.watch import watch
from beam_score.runners.choose import engine_of
from beam_score.runners.engine import Engine
from beam_score.runners.lean import import_beam, recognise_pandas
from beam_score.transforms.common.stopping import Stopping
from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.attempt import WriteSettings
from beam_score.transforms.ledger.folder import RunFolder, read_plan
from beam_score.transforms.ledger.receipt import Counts
from beam_score.transforms.ledger.receipts import collect
from beam_score.transforms.model.model import PYTHON
from beam_score.transforms.model.servable import import_tensorflow
from beam_score.transforms.rows.reject_count import RejectCount

if TYPE_CHECKING:  # a mistake in a job is reported before Beam is imported
    from apache_beam import Pipeline
    from apache_beam.pvalue import PCollection

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 60
_LONGEST_WAIT_TO_STOP_S = 10


def run(
    job: Job,
    *,
    parent: FromDeadLetters | None = None,
    on_planned: Callable[[], None] = lambda: None,
    **options: Unpack[LaunchOptions],
) -> Outcome:
    """Run a job until it has a verdict.

    Args:
      parent: for a replay, the run whose dead letters are the input.
      on_planned: called once the plan exists, before any row is scored.
      options: see `LaunchOptions`.

    Raises:
      JobError: nothing was launched.
      GoesOnElsewhere: the job was launched, and the caller asked not to wait for it.
      Exception: the job was launched and reached no verdict; see `pipeline.process.errors`.
    """
    refuse_unknown(options)
    launch = Launch.prepare(job, parent, on_planned, options)
    return dataclasses.replace(bring_to_verdict(launch), seconds=launch.seconds)


@dataclasses.dataclass(frozen=True)
class Launch:
    """A launch, as prepared by `Launch.prepare`. Its other steps are `plan`, `score` and `publish`, in this order;
    `pipeline.run.protocol` omits those that earlier or concurrent launches have done.

    Attributes:
      prepared: the job, checked.
      fingerprint: identifies the job; see `pipeline.prepare.preflight.fingerprint`.
      engine: runs the pipeline.
      options: see `LaunchOptions`.
      discards: runs in the output folder that may be replaced.
      new: id for a run that this launch begins.
      on_planned: see `run`.
      seconds: duration of each step until now.
    """

    prepared: Prepared
    fingerprint: Mapping[str, str]
    engine: Engine
    options: LaunchOptions
    discards: Collection[str]
    new: str
    on_planned: Callable[[], None]
    seconds: dict[str, float]

    @classmethod
    def prepare(
        cls, job: Job, parent: FromDeadLetters | None, on_planned: Callable[[], None], options: LaunchOptions
    ) -> Launch:
        """Check everything that can be known before the launch. Raises JobError, with all problems."""
        restart = options.get("restart", False)
        engine = engine_of(job.engine, options.get("beam_options", ()))
        seconds: dict[str, float] = {}
        logs.name_run(new := new_run())
        # Before the checks: the command may only replace runs that exist when it is given.
        state = OutputState.of(job.output.path)
        discards = state.allowing(options.get("replace", False), restart)
        with clock(seconds, "check"):
            problems = [*engine.problems(), *engine.place_problems(job.places)]
            if restart:
                problems += _problems_of_discarding(state, discards)
            prepared = prepare(job, parent, problems)
            check_fits(prepared, engine)
            fingerprint = prepared.fingerprint()
            if options.get("replace_if_changed"):
                discards = discards | state.others(fingerprint)
                if not restart and (problems := _problems_of_discarding(state, discards)):
                    raise JobError(problems)
        return cls(prepared, fingerprint, engine, options, discards, new, on_planned, seconds)

    def state(self) -> OutputState:
        """Return the present state of the output folder."""
        job, files = self.prepared.job, self.prepared.source.matched
        return OutputState.of(self.output, self.discards, files, settings_on_record(job))

    def refuse(self, state: OutputState) -> Mapping[str, Any] | None:
        """Return the failure record if too many files are unusable, else None; see `refuse_unusable`."""
        return refuse_unusable(self.prepared, self.fingerprint, state)

    def plan(self, state: OutputState) -> RunFolder:
        """Begin a run, or continue one that has no plan, and write its plan. Raises LostRace."""
        check_room(self.prepared)
        recognise_pandas(self.prepared.steps.read.format)
        in_thread(_import_chain)  # beside the model's load and its trial
        with clock(self.seconds, "load"):
            servable = load(self.prepared)
        return plan_run(self.prepared, self.fingerprint, servable, state, self.seconds, self.new)

    def score(self, folder: RunFolder) -> None:
        """Write the receipts that a run lacks: wait for the remote jobs of other launches, then run the pipeline, which
        may also publish.

        Raises:
          Drained: a user has interrupted the command, and splits are left.
        """
        self.on_planned()
        logs.name_run(folder.run)
        if others := others_at_work(folder, self.engine.elsewhere(folder.run)):
            with clock(self.seconds, "wait"), self._watch(folder):
                wait_for(others)
            if is_read(folder):
                return
        # In the main thread: in a worker's thread, beside other threads, an import takes twice as long.
        recognise_pandas(self.prepared.steps.read.format)
        import_beam()
        from beam_score.pipeline.prepare.chain import build

        plan = read_plan(folder)
        steps = pinned(self.prepared, plan)
        if steps.call.runtime == PYTHON:
            with clock(self.seconds, "import"):
                import_tensorflow()
        log.info("%d splits of %d files", plan["splits"], len(plan["inputs"]))
        job, stopping = self.prepared.job, Stopping()
        most = job.rejects.stop_after
        rejects = RejectCount(most, {} if most is None else _rejected_before(folder, plan))
        schema = steps.outputs.schema
        put = functools.partial(
            build,
            steps=steps,
            write=WriteSettings(folder, schema, job.output.format, job.output.not_finite, rejects, steps.call.bounds),
            shards=plan["shards"],
            budget=job.rejects.as_budget(),
            keep_replaced=self.keep_replaced,
            chains=self.engine.chains,
            stopping=stopping,
        )
        self._run_pipeline(put, folder, stopping)
        if stopping.after_splits.is_set():
            finished = sum(receipt is not None for receipt in collect(folder, plan["splits"]))
            if storage.exists(folder.plan) and finished < plan["splits"]:
                raise interrupts.Drained(
                    f"stopped: {finished} of {plan['splits']} splits are done; the same command continues from here"
                )

    def publish(self, folder: RunFolder) -> Mapping[str, Any]:
        """Decide on a run that has all its receipts, and publish it; see `pipeline.run.protocol.publish`."""
        job, schema = self.prepared.job, self.prepared.steps.outputs.schema
        return publish(folder, job.rejects.as_budget(), schema, self.keep_replaced)

    @property
    def output(self) -> str:
        """The output folder."""
        return self.prepared.job.output.path

    @property
    def keep_replaced(self) -> bool:
        """See `transforms.ledger.publication.roll_forward`."""
        return self.options.get("keep_replaced", False)

    def _watch(self, folder: RunFolder) -> AbstractContextManager[None]:
        return watch(folder, self.options.get("show_progress"))

    def _run_pipeline(self, put: Callable[[Pipeline], PCollection[Any]], folder: RunFolder, stopping: Stopping) -> None:
        """Run the pipeline to its end. After an error or a signal, stop it and wait for its workers.

        Args:
          put: puts the chain into a pipeline.
        """
        engine, running = self.engine, None
        cpu = time.process_time()
        submitted = engine.elsewhere(folder.run)
        if submitted is not None:
            note(folder, submitted)
        try:
            # In a thread: Beam handles a signal only after all its workers have ended by themselves.
            with clock(self.seconds, "run"), self._watch(folder):
                running = in_thread(functools.partial(engine.run, put, folder.run))
                with (
                    interrupts.first_sigint_calls(stopping.after_splits.set) if engine.in_one_process else nullcontext()
                ):
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
        self.seconds["run_cpu"] = round(time.process_time() - cpu, 2)


def _import_chain() -> None:
    """Import Beam and all steps."""
    import_beam()
    import beam_score.pipeline.prepare.chain  # noqa: F401


def _problems_of_discarding(state: OutputState, discards: Collection[str]) -> list[str]:
    """Return the reasons not to discard the current run; none if it is not to be discarded."""
    current = state.current
    if current is None or current["run"] not in discards:
        return []
    return list(problems_of_discarding(RunFolder(state.output, current["run"])))


def _rejected_before(folder: RunFolder, plan: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the number of rows that earlier launches of a run rejected, by reason."""
    done = [receipt for receipt in collect(folder, plan["splits"]) if receipt is not None]
    return Counts.of(done).reasons
