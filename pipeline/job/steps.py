"""A job, resolved: the settings of each step of the chain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from beam_score.pipeline.job.job import Job
from beam_score.transforms.contract.inputs import Input
from beam_score.transforms.contract.outputs import OutputPlan
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.signature import Signature


@dataclasses.dataclass(frozen=True)
class Steps:
    """A fully resolved job: the settings of each step of the chain.

    Attributes:
      read: includes the contract.
      inputs: how the model's inputs are made.
      function: the user's preprocessing function, `package.module:function`, or None.
      call: how the model is called.
      outputs: how a prediction is made from the model's outputs.
    """

    read: ReadSettings
    inputs: Mapping[str, Input]
    function: str | None
    call: ModelCall
    outputs: OutputPlan


def call_of(
    job: Job, path: str, sha256: str, signature: Signature, outputs: tuple[str, ...], proven: bool, **more: Any
) -> ModelCall:
    """Return how the model of a job is called.

    Args:
      path: the SavedModel folder.
      sha256: its `hash_model`.
      signature: with the outputs as they are written.
      outputs: names of the requested outputs.
      proven, more: see `ModelCall`.
    """
    return ModelCall(
        path=path,
        signature=signature,
        outputs=outputs,
        pads={n: i.pad for n, i in job.inputs.items() if i.pad is not None},
        sha256=sha256,
        deadline_s=job.model.deadline,
        full_messages=job.rejects.model_messages == "full",
        proven=proven,
        **more,
    )
