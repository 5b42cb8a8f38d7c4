"""The step that converts model outputs to predictions."""

from __future__ import annotations

import time

import apache_beam as beam

from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.contract.outputs import OutputPlan
from beam_score.transforms.rows.block import Block
from beam_score.transforms.scoring.postprocess import postprocess


class Postprocess(beam.PTransform):
    """PCollection[Block] -> PCollection[Block]: converts rows to predictions, as they will be written."""

    def __init__(self, plan: OutputPlan):
        super().__init__()
        check_type("Postprocess: plan", plan, OutputPlan, "pass OutputPlan(keep, position, outputs, tensors)")
        self.plan = plan

    def expand(self, blocks):
        return blocks | beam.Map(_timed, self.plan).with_output_types(Block)


def _timed(block: Block, plan: OutputPlan) -> Block:
    began = time.perf_counter()
    block = postprocess(block, plan)
    return block.with_tally(postprocess_s=time.perf_counter() - began)
