"""The job as one visible chain."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import apache_beam as beam

from transforms.commit import Commit
from transforms.infer import Infer, ModelCall
from transforms.plan import PlannedSplits
from transforms.postprocess import OutputPlan, Postprocess
from transforms.preprocess import Input, Preprocess
from transforms.read import Read, ReadSettings
from transforms.receipts import is_done
from transforms.run_folder import RunFolder
from transforms.validate import Validate
from transforms.verdict import Budget
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


def build(
    pipeline: beam.Pipeline,
    steps: Steps,
    write: WriteSettings,
    shards: Sequence[str],
    budget: Budget,
    keep_replaced: bool = True,
) -> beam.PCollection:
    """Puts the whole job into a pipeline. Everything between Read and WriteParts fuses: only
    descriptors of splits are ever serialized.

    Args:
      shards: names of the plan's shards.
      keep_replaced: see `transforms.verdict.roll_forward`.
    """
    folder: RunFolder = write.folder
    contract = steps.read.columns
    return (
        pipeline
        | "Plan" >> PlannedSplits(folder, shards)
        | "Read" >> Read(steps.read, functools.partial(is_done, folder))
        | "Validate" >> Validate(contract, steps.read.payload)
        | "Preprocess" >> Preprocess(steps.inputs, steps.call.signature.inputs, contract, steps.function)
        | "Infer" >> Infer(steps.call)
        | "Postprocess" >> Postprocess(steps.outputs)
        | "WriteParts" >> WriteParts(write)
        | "Commit" >> Commit(folder, budget, write.schema, keep_replaced)
    )
