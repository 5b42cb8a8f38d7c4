"""The state of a job on Dataflow, without using Beam."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import dataflow

from beam_score.runners.elsewhere import Elsewhere, Found

_ANSWERS_WITHIN_S = 20

_ENDED = {
    getattr(dataflow.JobState, f"JOB_STATE_{name}") for name in ("DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED")
}


def find(job: Elsewhere) -> Found:
    """Return the state of a job on Dataflow; see `runners.choose.find`."""
    project, region = job.place["project"], job.place["region"]
    try:
        client, ended = _client(job.place.get("endpoint")), None
        for found in named(client, project, region, job.name, timeout=_ANSWERS_WITHIN_S):
            word = dataflow.JobState(found.current_state).name.removeprefix("JOB_STATE_").lower()
            if not has_ended(found):
                return Found(job, found.id, word, True, cancel=cancel_command(found.id, project, region))
            ended = ended or Found(job, found.id, word)
    except (GoogleAPICallError, GoogleAuthError, OSError) as error:
        return Found(job, alive=None, why=" ".join(str(error).split()) or type(error).__name__)
    return ended or Found(job)


def named(
    client: dataflow.JobsV1Beta3Client, project: str, region: str, name: str, **call: Any
) -> Iterator[dataflow.Job]:
    """Return the jobs with a name, ended or not, in the order of the service.

    Args:
      call: options of the client's request.
    """
    # Beam's own job_id_for_name (2.77) never ends if there is no job, and ignores a pending job. The filter is ALL,
    # because it is not documented whether a queued job is "active".
    request = dataflow.ListJobsRequest(
        project_id=project, location=region, name=name, filter=dataflow.ListJobsRequest.Filter.ALL
    )
    return (job for job in client.list_jobs(request, **call) if job.name == name)


def has_ended(job: dataflow.Job) -> bool:
    """Return whether a job has ended."""
    return job.current_state in _ENDED


def cancel_command(id_: str, project: str, region: str) -> str:
    """Return the command to cancel a job."""
    return f"gcloud dataflow jobs cancel {id_} --region={region} --project={project}"


def _client(endpoint: str | None) -> dataflow.JobsV1Beta3Client:
    if endpoint is None:
        return dataflow.JobsV1Beta3Client()
    if "localhost" in endpoint:  # no credentials for a local endpoint, as in Beam
        options = ClientOptions(api_endpoint=endpoint)
        return dataflow.JobsV1Beta3Client(credentials=AnonymousCredentials(), client_options=options, transport="rest")
    return dataflow.JobsV1Beta3Client(
        client_options=ClientOptions(api_endpoint=endpoint.partition("://")[2] or endpoint)
    )
