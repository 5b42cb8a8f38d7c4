"""A job, or a model folder, bound to one version of its model: the steps of the job for the rows of requests, and the
signatures that are served."""

from __future__ import annotations

from collections.abc import Mapping

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.model_folder import ModelFolder
from beam_score.pipeline.job.steps import Steps, call_of
from beam_score.pipeline.serve.answering.rows import CONTRACT
from beam_score.pipeline.serve.models.call_rows import USUAL_ROWS, asked_rows
from beam_score.transforms.contract.binding import bind_inputs
from beam_score.transforms.contract.outputs import OutputPlan, bind_outputs, signature_as_written, wanted_outputs
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.model.signature import (
    Signature,
    choose_signature,
    read_signatures,
    unsupported,
)


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
    rows = asked_rows(job) or USUAL_ROWS
    call = call_of(job, path, sha256, written, tuple(wanted), proven=True, batch_rows=rows)
    read = ReadSettings(
        format="jsonl",
        columns=job.contract,
        payload=False,
        from_files=False,
        extra=job.input.extra,
        max_row_bytes=job.input.max_row_bytes,
    )
    return Steps(read, dict(job.inputs), job.preprocess, call, OutputPlan((), False, wanted, dict(written.outputs)))


def default_of(job: Job | ModelFolder, signatures: Mapping[str, Signature]) -> str:
    """Return the signature that is meant if a request names none.

    Args:
      signatures: of the model.

    Raises:
      JobError: there is no such signature, or its inputs cannot be fed.
      ModelError: there is no default.
    """
    name = job.serve.default
    if name is None and isinstance(job, Job):
        name = CONTRACT
    if name == CONTRACT and isinstance(job, Job):
        return CONTRACT
    if name is not None and name not in signatures:
        known = ", ".join((*signatures, *([CONTRACT] if isinstance(job, Job) else [])))
        raise JobError([f"serve.default: there is no signature {name!r}: expected one of {known}"])
    chosen = choose_signature(signatures, job.model.signature if name is None else name)
    if problems := unsupported(chosen):
        raise JobError([f"model: {problem}" for problem in problems])
    return chosen.name
