"""The job as one chain of transforms."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.pvalue import PCollection

from beam_score.pipeline.job.steps import Steps
from beam_score.transforms.common.stopping import Stopping
from beam_score.transforms.ledger.attempt import WriteSettings
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.receipts import is_done
from beam_score.transforms.steps.commit import Commit
from beam_score.transforms.steps.infer import Infer
from beam_score.transforms.steps.plan import PlannedSplits
from beam_score.transforms.steps.postprocess import Postprocess
from beam_score.transforms.steps.preprocess import Preprocess
from beam_score.transforms.steps.read import Read
from beam_score.transforms.steps.validate import Validate
from beam_score.transforms.steps.write import WriteParts


def build(
    pipeline: beam.Pipeline,
    steps: Steps,
    write: WriteSettings,
    shards: Sequence[str],
    budget: Budget,
    keep_replaced: bool = False,
    chains: int = 1,
    stopping: Stopping | None = None,
) -> PCollection[str]:
    """Add the whole job to a pipeline. All steps between Read and WriteParts fuse: only descriptors of splits are
    serialized.

    Args:
      shards: names of the plan's shards.
      keep_replaced: see `transforms.ledger.publication.roll_forward`.
      stopping: of the launch; see `Stopping`.
      chains: see `runners.engine.Engine`. Each chain has an equal share of the splits, from Plan to WriteParts.
    """
    folder: RunFolder = write.folder
    contract = steps.read.columns
    written = []
    for i in range(chains):
        name = f"{i + 1}/" if chains > 1 else ""
        written.append(
            pipeline
            | f"{name}Plan" >> PlannedSplits(folder, shards, (i, chains))
            | f"{name}Read" >> Read(steps.read, functools.partial(is_done, folder), stopping)
            | f"{name}Validate" >> Validate(contract, steps.read.payload)
            | f"{name}Preprocess"
            >> Preprocess(steps.inputs, steps.call.signature.inputs, contract, steps.function, write.rejects)
            | f"{name}Infer" >> Infer(steps.call, stopping)
            | f"{name}Postprocess" >> Postprocess(steps.outputs)
            | f"{name}WriteParts" >> WriteParts(write)
        )
    done = written[0] if chains == 1 else written | "Written" >> beam.Flatten()
    return done | "Commit" >> Commit(folder, budget, write.schema, keep_replaced, stopping, steps.read)
