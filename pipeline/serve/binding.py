"""The steps of a job for the rows of requests, bound to one version of its model."""

from __future__ import annotations

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.steps import Steps, call_of
from beam_score.transforms.contract.binding import bind_inputs
from beam_score.transforms.contract.outputs import OutputPlan, bind_outputs, signature_as_written, wanted_outputs
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.model.signature import choose_signature, read_signatures, unsupported


def steps_of(job: Job, path: str, sha256: str) -> Steps:
    """Bind a job to a version of its model.

    Args:
      path: the SavedModel folder.
      sha256: its `hash_model`.

    Raises:
      JobError: with every mismatch between contract and signature.
      ModelError: the folder is not a SavedModel with that signature.
    """
    signature = choose_signature(read_signatures(path), job.model.signature)
    wanted = wanted_outputs(job.outputs, signature)
    problems = [f"model: {p}" for p in unsupported(signature)]
    problems += bind_inputs(job.contract, job.inputs, signature, free_columns=job.preprocess is not None)
    problems += bind_outputs(wanted, signature, {})
    if problems:
        raise JobError(problems)
    written = signature_as_written(wanted, signature)
    call = call_of(job, path, sha256, written, tuple(wanted), proven=True, batch_rows=job.serve.batching.rows)
    read = ReadSettings(format="jsonl", columns=job.contract, payload=False)
    return Steps(read, dict(job.inputs), job.preprocess, call, OutputPlan((), False, wanted, dict(written.outputs)))
