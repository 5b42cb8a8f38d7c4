"""The rules of a job for rows from anywhere, bound to one version of its model."""

from __future__ import annotations

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.serve.answering.verdicts import Rules
from beam_score.transforms.contract.binding import bind_inputs
from beam_score.transforms.contract.outputs import OutputPlan, bind_outputs, signature_as_written, wanted_outputs
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.signature import choose_signature, read_signatures, unsupported


def rules_of(job: Job, path: str, sha256: str) -> Rules:
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
    call = ModelCall(
        path=path,
        signature=written,
        outputs=tuple(wanted),
        pads={n: i.pad for n, i in job.inputs.items() if i.pad is not None},
        sha256=sha256,
        deadline_s=job.model.deadline,
        full_messages=job.rejects.model_messages == "full",
        proven=True,
    )
    return Rules(job.contract, job.inputs, job.preprocess, call, OutputPlan((), False, wanted, dict(written.outputs)))
