"""A job on Dataflow: submitted once, told about while it runs, waited for."""

from __future__ import annotations

import datetime
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.runners.dataflow.dataflow_runner import DataflowPipelineResult, DataflowRunner
from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
from apache_beam.runners.runner import PipelineResult, PipelineState
from google.api_core.exceptions import Conflict, GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud import dataflow

from beam_score.runners.dataflow.active import cancel_command, has_ended, named
from beam_score.runners.ended import GOES_ON, JobFailed

log = logging.getLogger(__name__)

_FIRST_LOOK_S, _LOOKS_EVERY_S = 0.5, 15.0
_REASON_COMES_WITHIN_S = 45.0
"""The service says why a job has failed some time after it says that it has."""

_ERROR = "JOB_MESSAGE_ERROR"
_LEVELS = {"JOB_MESSAGE_BASIC": logging.INFO, "JOB_MESSAGE_WARNING": logging.WARNING}
_RAISED = re.compile(r"^(?:[\w.]+\.)?(\w+): ", re.MULTILINE)


def always(text: str) -> None:
    """Logs what a person needs even where little is logged."""
    log.log(max(logging.INFO, log.getEffectiveLevel()), "%s", text)


def submit(build: Callable[[beam.Pipeline], object], options: PipelineOptions) -> Job | None:
    """Submits a job; or finds the one of that name at work, and takes that.

    Args:
      build: puts the transforms into a pipeline.

    Returns:
      the job; None where a template was written instead.

    Raises:
      JobFailed: the service does not take it.
    """
    runner = DataflowRunner()
    pipeline = beam.Pipeline(runner, options)
    build(pipeline)
    try:
        try:
            result = pipeline.run()
        except (DataflowJobAlreadyExistsError, Conflict):
            result = _at_work(runner, options)
            if result is None:
                raise
            log.warning("another launch of this run has submitted its job already: that one is waited for")
    except (GoogleAPICallError, GoogleAuthError, DataflowJobAlreadyExistsError) as error:
        raise JobFailed(f"Dataflow does not take job {options.view_as(GoogleCloudOptions).job_name}: {error}") from None
    if not result.has_job:
        return None
    job = Job(runner, result, options)
    # Airflow's hook reads the id from just these words, which Beam's own log has too, with all options of the job.
    always(f"Created job with id: [{job.id}]")
    always(f"job {job.name}: {job.link}")
    return job


def _at_work(runner: DataflowRunner, options: PipelineOptions) -> DataflowPipelineResult | None:
    cloud = options.view_as(GoogleCloudOptions)
    for job in named(runner.dataflow_client._jobs_client, cloud.project, cloud.region, cloud.job_name):
        if not has_ended(job):
            return DataflowPipelineResult(job, runner, options)
    return None


class Job:
    """Attributes:
    id, name: Dataflow's.
    link: to its page in the console.
    cancel_command: what a person types to cancel it.
    """

    def __init__(self, runner: DataflowRunner, result: DataflowPipelineResult, options: PipelineOptions):
        cloud = options.view_as(GoogleCloudOptions)
        self._client, self._result = runner.dataflow_client, result
        self.id, self.name = result.job_id(), cloud.job_name
        self.link = f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{self.id}?project={cloud.project}"
        self.cancel_command = cancel_command(self.id, cloud.project, cloud.region)
        self._left = threading.Event()
        self._told: set[str] = set()
        self._last: datetime.datetime | None = None

    def wait(self) -> PipelineResult:
        """Waits for the job's end, and logs what the service says meanwhile.

        Beam's own wait sleeps five seconds at a time, cannot be left, and logs what workers raise whole.

        Raises:
          JobFailed: it has not come to a good end, or is lost sight of, or `leave` was called.
        """
        try:
            return self._wait()
        except (GoogleAPICallError, GoogleAuthError, OSError) as error:  # after minutes, where it may mend itself
            raise JobFailed(
                f"Dataflow no longer tells of job {self.id} ({error}). The job itself goes on, and publishes by "
                f"itself; the same command waits for it again. To cancel it: {self.cancel_command}"
            ) from None

    def _wait(self) -> PipelineResult:
        state, pause, errors, ended = None, _FIRST_LOOK_S, [], None
        while True:
            now = self._client.get_job(self.id).current_state
            if now != state:
                state = now
                log.info("job %s is %s", self.id, _word(state))
            errors += self._messages()
            final = DataflowPipelineResult.api_jobstate_to_pipeline_state(state)
            if PipelineState.is_terminal(final):
                ended = ended or time.monotonic()
                if final != PipelineState.FAILED or errors or time.monotonic() - ended > _REASON_COMES_WITHIN_S:
                    break
                pause = _FIRST_LOOK_S
            if self._left.wait(pause):
                raise JobFailed(f"job {self.id} is left alone")
            pause = min(_LOOKS_EVERY_S, pause * 1.5)
        if final != PipelineState.DONE:
            raise JobFailed(f"job {self.id} has ended as {_word(state)} ({self.link}): {GOES_ON}", errors)
        return self._result

    def leave(self) -> None:
        """Ends the wait, and leaves the job to itself; may be called from another thread."""
        self._left.set()

    def cancel(self) -> None:
        """Asks the service to cancel the job, and says what came of it."""
        try:
            self._client.modify_job_state(self.id, "JOB_STATE_CANCELLED")
            always(f"job {self.id} is being cancelled: {GOES_ON}")
        except (GoogleAPICallError, GoogleAuthError, OSError) as error:
            always(f"job {self.id} goes on: Dataflow does not cancel it ({error}). To cancel it: {self.cancel_command}")

    def _messages(self) -> list[str]:
        """Logs what is new, and gives the errors among it."""
        errors = []
        for message in self._new():
            level = dataflow.JobMessageImportance(message.message_importance).name
            if level == _ERROR:
                errors.append(message.message_text)
                # No more than its kind: the text may hold what the worker had in hand.
                kinds = _RAISED.findall(message.message_text)
                log.warning("the service reports an error%s", f": {kinds[-1]}" if kinds else "")
            else:
                log.log(_LEVELS.get(level, logging.DEBUG), "%s", message.message_text)
        return errors

    def _new(self) -> Iterator[dataflow.JobMessage]:
        token = None
        while True:
            messages, token = self._client.list_messages(
                self.id, start_time=self._last, page_token=token, minimum_importance="JOB_MESSAGE_BASIC"
            )
            for message in messages:
                self._last = max(self._last or message.time, message.time)
                if message.id not in self._told:
                    self._told.add(message.id)
                    yield message
            if not token:
                return


def _word(state: dataflow.JobState) -> str:
    return dataflow.JobState(state).name.removeprefix("JOB_STATE_").lower()
