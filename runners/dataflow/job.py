"""A job on Dataflow: submission, log messages while it runs, waiting and cancelling."""

from __future__ import annotations

import datetime
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

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
"""The service reports the reason for a failure some time after the failure."""

_ERROR = "JOB_MESSAGE_ERROR"
_LEVELS = {"JOB_MESSAGE_BASIC": logging.INFO, "JOB_MESSAGE_WARNING": logging.WARNING}
_RAISED = re.compile(r"^(?:[\w.]+\.)?(\w+): ", re.MULTILINE)


def always(text: str) -> None:
    """Log a message at any log level."""
    log.log(max(logging.INFO, log.getEffectiveLevel()), "%s", text)


def submit(build: Callable[[beam.Pipeline], object], options: PipelineOptions) -> Job | None:
    """Submit a job, or return the running job with the same name.

    Args:
      build: puts the transforms into a pipeline.

    Returns:
      the job; None if a template was written instead.

    Raises:
      JobFailed: the service refuses the job.
    """
    runner = DataflowRunner()
    pipeline = beam.Pipeline(runner, options)
    build(pipeline)
    try:
        try:
            result = cast(DataflowPipelineResult, pipeline.run())
        except (DataflowJobAlreadyExistsError, Conflict):
            running = _at_work(runner, options)
            if running is None:
                raise
            result = running
            log.warning("another launch of this run has already submitted its job: waiting for that job")
    except (GoogleAPICallError, GoogleAuthError, DataflowJobAlreadyExistsError) as error:
        raise JobFailed(f"Dataflow refuses job {options.view_as(GoogleCloudOptions).job_name}: {error}") from None
    if not result.has_job:
        return None
    job = Job(runner, result, options)
    # Airflow's hook parses the id from exactly this text, which Beam also logs, but with all options of the job.
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
    """A submitted job.

    Attributes:
      id, name: of the job on Dataflow.
      link: to the job's page in the console.
      cancel_command: the command to cancel the job.
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
        """Wait for the job's end, and log the service's messages meanwhile.

        Beam's own wait sleeps five seconds at a time, cannot be ended early, and logs the full errors of workers.

        Raises:
          JobFailed: the job has failed or was cancelled, or the service does not answer, or `leave` was called.
        """
        try:
            return self._wait()
        except (GoogleAPICallError, GoogleAuthError, OSError) as error:  # after minutes of retries, if it is transient
            raise JobFailed(
                f"Dataflow no longer reports the state of job {self.id} ({error}). The job itself continues, and "
                "publishes its result itself; the same command waits for it again. To cancel it: "
                f"{self.cancel_command}"
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
                raise JobFailed(f"stopped waiting for job {self.id}")
            pause = min(_LOOKS_EVERY_S, pause * 1.5)
        if final != PipelineState.DONE:
            raise JobFailed(f"job {self.id} has ended as {_word(now)} ({self.link}): {GOES_ON}", errors)
        return self._result

    def leave(self) -> None:
        """End the wait, and let the job continue; may be called from another thread."""
        self._left.set()

    def cancel(self) -> None:
        """Ask the service to cancel the job, and log the outcome."""
        try:
            self._client.modify_job_state(self.id, "JOB_STATE_CANCELLED")
            always(f"job {self.id} is being cancelled: {GOES_ON}")
        except (GoogleAPICallError, GoogleAuthError, OSError) as error:
            always(
                f"job {self.id} continues: Dataflow does not cancel it ({error}). To cancel it: {self.cancel_command}"
            )

    def _messages(self) -> list[str]:
        """Log new messages, and return the errors among them."""
        errors = []
        for message in self._new():
            level = dataflow.JobMessageImportance(message.message_importance).name
            if level == _ERROR:
                errors.append(message.message_text)
                # Only the type of the error: the text may contain values of rows.
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
