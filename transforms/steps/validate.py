"""The step that validates blocks against the contract."""

from __future__ import annotations

import time

import apache_beam as beam

from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.rows.block import Block
from beam_score.transforms.scoring.validate import validate


class Validate(beam.PTransform):
    """PCollection[Block] -> PCollection[Block]: types the contract's columns, rejects rows that break it.

    Args:
      contract: defines a valid row.
      show_values: whether the messages of dead letters may contain values (`rejects.payload: full`).
    """

    def __init__(self, contract: Contract, show_values: bool = True):
        super().__init__()
        check_type("Validate: contract", contract, Contract, "pass Contract(columns={name: Column(dtype=...)})")
        self.contract, self.show_values = contract, show_values

    def expand(self, blocks):
        return blocks | beam.Map(_timed, self.contract, self.show_values).with_output_types(Block)


def _timed(block: Block, contract: Contract, show_values: bool) -> Block:
    began = time.perf_counter()
    block = validate(block, contract, show_values)
    return block.with_tally(validate_s=time.perf_counter() - began)
