"""The chain of a job without an engine: one worker thread's steps, called in sequence, with any model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reading import read_settings

from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.contract.outputs import Output, OutputPlan
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.ledger.attempt import WriteSettings
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.rows.block import Block
from beam_score.transforms.scoring.grouping import Weight, pieces
from beam_score.transforms.scoring.output_sizes import OutputSizes
from beam_score.transforms.scoring.postprocess import postprocess
from beam_score.transforms.scoring.preprocess import Preparation
from beam_score.transforms.scoring.validate import validate
from beam_score.transforms.steps.infer import BeamScorer
from beam_score.transforms.steps.write import WriteParts


def score(path: Path, output: Path, read: ReadSettings, call: ModelCall, model: Any, format_: str = "parquet") -> dict:
    """Read one file as one split, score it and write the result. Returns the receipt's counts of the file."""
    plan = OutputPlan((), False, {name: Output() for name in call.outputs}, dict(call.signature.outputs))
    folder = RunFolder(str(output), "20260101T000000-abcdef")
    for one in (folder.parts, folder.receipts):
        one.mkdir(parents=True)
    folder.plan.write_text("{}")
    writer = WriteParts(WriteSettings(folder, plan.schema, format_, bounds=call.bounds)).writer()
    writer.start_bundle()
    handler = BeamScorer(call)
    split = Split(0, (FileRange(str(path), path.stat().st_size),))
    for group in _groups(_pieces(split, read, call), call):
        for block in handler.run_inference(group, model):
            list(writer.process(postprocess(block, plan)))
    writer.finish_bundle()
    return counts(folder)


def counts(folder: RunFolder) -> dict:
    import json

    receipt = json.loads(folder.receipt(0).read_bytes())
    receipt = receipt.get("content", receipt)
    return next(iter(receipt["files"].values()))


def _pieces(split: Split, read: ReadSettings, call: ModelCall) -> Iterator[Block]:
    preparation = Preparation({}, call.signature.inputs, read.columns)
    sizes = OutputSizes(call)
    for block in read_split(split, read, "aaaaaaaaaaaa"):
        yield from pieces(preparation(validate(block, read.columns, read.payload)), call, sizes)


def _groups(blocks: Iterator[Block], call: ModelCall) -> Iterator[list[Block]]:
    """Group blocks as Beam's BatchElements does (`apache_beam/transforms/util.py`, 2.77)."""
    weight, group, size = Weight(call), [], 0
    for block in blocks:
        if size + (own := weight(block)) > weight.of_group:
            yield group
            group, size = [], 0
        group.append(block)
        size += own
    yield group


def settings(format_: str, contract: Contract, call: ModelCall, **options: Any) -> ReadSettings:
    bounds = call.bounds
    return dataclasses.replace(
        read_settings(format_, contract, bounds=bounds, max_block_rows=bounds.block_rows, **options),
        max_block_bytes=min(1 << 20, bounds.block_bytes),
    )
