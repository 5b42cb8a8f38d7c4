"""The job as one visible chain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import apache_beam as beam

from transforms.commit import Budget, Commit
from transforms.infer import Infer, ModelCall
from transforms.plan import PlannedSplits, RunFolder
from transforms.postprocess import OutputPlan, Postprocess
from transforms.preprocess import Input, Preprocess
from transforms.read import Read, ReadSettings
from transforms.validate import Validate
from transforms.write import WriteParts, WriteSettings


@dataclasses.dataclass(frozen=True)
class Steps:
    """A job with everything resolved: what each step of the chain is told.

    Attributes:
      read: includes the contract.
      inputs: how the model's inputs are made.
      function: the user's own preprocessing, `package.module:function`, or None.
      call: how the model is called.
      outputs: what a prediction is made of.
    """

    read: ReadSettings
    inputs: Mapping[str, Input]
    function: str | None
    call: ModelCall
    outputs: OutputPlan


def build(pipeline: beam.Pipeline, steps: Steps, write: WriteSettings, shards: int, budget: Budget) -> beam.PCollection:
    """Puts the whole job into a pipeline. Everything between Read and WriteParts fuses: only
    descriptors of splits are ever serialized."""
    folder: RunFolder = write.folder
    contract = steps.read.columns
    return (
        pipeline
        | "Plan" >> PlannedSplits(folder, shards)
        | "Read" >> Read(steps.read, folder.has_receipt)
        | "Validate" >> Validate(contract, steps.read.payload)
        | "Preprocess" >> Preprocess(steps.inputs, steps.call.signature.inputs, contract, steps.function)
        | "Infer" >> Infer(steps.call)
        | "Postprocess" >> Postprocess(steps.outputs)
        | "WriteParts" >> WriteParts(write)
        | "Commit" >> Commit(folder, budget, write.schema)
    )
