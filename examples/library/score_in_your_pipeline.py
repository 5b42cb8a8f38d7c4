"""The transforms in your own Beam pipeline: score CSV files, and count predictions by label.

    python examples/library/score_in_your_pipeline.py 'demo/data/people-*.csv' demo/models/people/1

This pipeline does not use plan and receipts to publish; it decides itself what to do with the blocks. Any of Beam's
options may follow.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator

import apache_beam as beam
import pyarrow.compute as pc

from beam_score.transforms import (
    Block,
    Column,
    Contract,
    Infer,
    Input,
    ModelCall,
    Output,
    OutputPlan,
    Postprocess,
    Preprocess,
    Read,
    ReadSettings,
    Validate,
    bind_inputs,
    read_signatures,
    signature_as_written,
    split_files,
)

CONTRACT = Contract(
    columns={
        "age": Column(dtype="float32", range=(0, 150)),
        "income": Column(dtype="float32", range=(0, None)),
        "score": Column(dtype="float32", range=(0, 1), default=0.5),
    }
)
INPUTS = {
    "inputs": Input(
        pack=("age", "income", "score"),
        standardize={"mean": (40, 50_000, 0.5), "std": (12, 30_000, 0.3)},
    )
}
OUTPUTS = {"probabilities": Output(meaning="probabilities", labels=("no", "yes"))}


def labels(block: Block) -> Iterator[tuple[str, int]]:
    """Yield (label, rows) of the good rows and (reason, rows) of the rejected rows: a few pairs per block."""
    for column in (block.rows["probabilities_label"], block.rejected["reason"]):
        for count in pc.value_counts(column).to_pylist():
            yield count["values"], count["counts"]


def main(pattern: str, model: str, *beam_options: str) -> None:
    signature = signature_as_written(OUTPUTS, read_signatures(model)["serving_default"])
    if problems := bind_inputs(CONTRACT, INPUTS, signature):
        sys.exit("\n".join(problems))
    settings = ReadSettings(format="csv", columns=CONTRACT)
    splits = split_files([(path, os.path.getsize(path)) for path in sorted(glob.glob(pattern))], settings)
    call = ModelCall(path=model, signature=signature, outputs=tuple(OUTPUTS))
    plan = OutputPlan(keep=(), position=False, outputs=OUTPUTS, tensors=signature.outputs)
    with beam.Pipeline(argv=list(beam_options)) as pipeline:
        _ = (
            pipeline
            | beam.Create(splits, reshuffle=False)
            | beam.Reshuffle()
            | Read(settings)
            | Validate(CONTRACT)
            | Preprocess(INPUTS, signature.inputs, CONTRACT)
            | Infer(call)
            | Postprocess(plan)
            | beam.FlatMap(labels)
            | beam.CombinePerKey(sum)
            | beam.MapTuple(lambda label, rows: print(f"{label:20} {rows:>10,}"))
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
