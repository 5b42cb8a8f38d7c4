"""A job, resolved: the settings of each step of the chain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from beam_score.transforms.contract.inputs import Input
from beam_score.transforms.contract.outputs import OutputPlan
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.model.call import ModelCall


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
