"""The step that makes the model's inputs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

import apache_beam as beam

from beam_score.transforms.common.arguments import check_mapping, check_type
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.contract.inputs import Input
from beam_score.transforms.model.signature import Tensor
from beam_score.transforms.rows.block import Block
from beam_score.transforms.rows.reject_count import BEFORE_THE_MODEL, RejectCount
from beam_score.transforms.scoring.halving import Attempts
from beam_score.transforms.scoring.preprocess import Preparation


class Preprocess(beam.PTransform):
    """PCollection[Block] -> PCollection[Block]: adds the model's inputs as columns.

    Args:
      inputs: how each input is made; an input that is not named is the column of the same name.
      tensors: the signature's inputs.
      contract: of the columns.
      function: `package.module:function` applied first, to a RecordBatch of the columns; or None.
      rejects: counts the rows rejected so far, and ends a hopeless run; None to count nothing.
    """

    def __init__(
        self,
        inputs: Mapping[str, Input],
        tensors: Mapping[str, Tensor],
        contract: Contract,
        function: str | None = None,
        rejects: RejectCount | None = None,
    ):
        super().__init__()
        check_mapping("Preprocess: inputs", inputs, Input, "pass {name of the input: Input(...)}, or {}")
        check_mapping("Preprocess: tensors", tensors, Tensor, "pass signature.inputs")
        check_type("Preprocess: contract", contract, Contract, "pass Contract(columns={name: Column(dtype=...)})")
        if function is not None:
            check_type("Preprocess: function", function, str, "pass its name, for example 'features:add_logs'")
        self._preparation = Preparation(dict(inputs), dict(tensors), contract, function)
        self._rejects = RejectCount() if rejects is None else rejects

    def expand(self, blocks):
        return blocks | beam.ParDo(_PreprocessFn(self._preparation, self._rejects)).with_output_types(Block)


class _PreprocessFn(beam.DoFn):
    def __init__(self, preparation: Preparation, rejects: RejectCount):
        self.preparation, self.rejects = preparation, rejects

    def setup(self):
        self.preparation = dataclasses.replace(self.preparation, attempts=Attempts())

    def process(self, block: Block):
        began = time.perf_counter()
        block = self.preparation(block)
        self.rejects.add(block, BEFORE_THE_MODEL)
        yield block.with_tally(preprocess_s=time.perf_counter() - began)
