"""The memory that a worker process takes, held against what there is where it will run."""

from __future__ import annotations

from pipeline.job import Job
from pipeline.mistakes import JobError
from pipeline.preflight import Prepared
from runners.engine import Engine
from transforms.model_copies import model_bytes


def process_bytes(job: Job, prepared: Prepared) -> int:
    """What a worker process takes, roughly; see `runners.layout.Layout.memory_bytes`."""
    return job.engine.layout.memory_bytes(_model_bytes(prepared), job.engine.block_bytes)


def _model_bytes(prepared: Prepared) -> int:
    return model_bytes(prepared.model.path, prepared.model_hash)


def check_fits(prepared: Prepared, engine: Engine) -> None:
    """Raises JobError where the machines that are asked for have too little memory."""
    if problems := engine.memory_problems(_model_bytes(prepared)):
        raise JobError(problems)
