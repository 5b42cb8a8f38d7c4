"""The step that applies the model to blocks, through Beam's RunInference."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference

from beam_score.transforms.arrays.sizes import own_bytes
from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.common.stopping import Stopping
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.model import Model
from beam_score.transforms.rows.block import Block
from beam_score.transforms.scoring.grouping import Weight, pieces
from beam_score.transforms.scoring.output_sizes import OutputSizes
from beam_score.transforms.scoring.score import Scorer


class BeamScorer(ModelHandler[Block, Block, Model]):
    """`Scorer` as a handler of RunInference: grouping, the shared model, and metrics.

    The stock TensorFlow handlers are not used: they load through Keras, which refuses SavedModel folders, and `zip`
    drops the rows that a model did not answer (`apache_beam/ml/inference/base.py`, 2.77).
    """

    def __init__(self, call: ModelCall, stopping: Stopping | None = None):
        weight = Weight(call)
        # A constant: BatchElements never cuts a block, so it cannot set the batch size; `Scorer` cuts exact slices.
        super().__init__(min_batch_size=weight.of_group, max_batch_size=weight.of_group, element_size_fn=weight)
        self.scorer = Scorer(call, stopping=stopping)
        self._calls = Metrics.counter("beam_score", "model_calls")
        self._batch_rows = Metrics.distribution("beam_score", "batch_rows")
        self._model_ms = Metrics.distribution("beam_score", "model_ms")
        self._load_ms = Metrics.distribution("beam_score", "load_ms")
        self._loaded_ms: int | None = None  # a model is loaded outside a bundle, where Beam counts nothing

    def load_model(self) -> Model:
        began = time.perf_counter()
        model = self.scorer.load()
        self.scorer.close()  # Beam keeps the model, and shares it among the workers of a process
        self._loaded_ms = round(1e3 * (time.perf_counter() - began))
        return model

    def run_inference(
        self, batch: Sequence[Block], model: Model, inference_args: dict[str, Any] | None = None
    ) -> list[Block]:
        self.scorer.model = model
        blocks = self.scorer.score(batch)
        if self._loaded_ms is not None:
            self._load_ms.update(self._loaded_ms)
            self._loaded_ms = None
        for rows, seconds in self.scorer.calls:
            self._calls.inc()
            self._batch_rows.update(rows)
            self._model_ms.update(round(1e3 * seconds))
        return blocks

    def get_num_bytes(self, batch: Sequence[Block]) -> int:
        """Return the bytes of the rows: the inherited method pickles every batch."""
        return sum(own_bytes(b.rows) for b in batch)

    def get_metrics_namespace(self) -> str:
        return "beam_score"


class Infer(beam.PTransform):
    """PCollection[Block] -> PCollection[Block]: Beam's RunInference with `BeamScorer`.

    Args:
      call: how the model is called.
      stopping: checked between two calls: whether the work is to end.
    """

    def __init__(self, call: ModelCall, stopping: Stopping | None = None):
        super().__init__()
        check_type("Infer: call", call, ModelCall, "pass ModelCall(path, signature, outputs)")
        self.call, self.stopping = call, stopping

    def expand(self, blocks):
        # RunInference declares Any as its output; without the type the coder would be pickle. Do not add a resource
        # hint to the handler: it would break the fusion of the pipeline (see docs/architecture.md).
        whole = blocks | "Cut" >> Cut(self.call)
        return whole | RunInference(BeamScorer(self.call, self.stopping)).with_output_types(Block)


class Cut(beam.PTransform):
    """PCollection[Block] -> PCollection[Block]: see `pieces`."""

    def __init__(self, call: ModelCall):
        super().__init__()
        self.call = call

    def expand(self, blocks):
        return blocks | beam.ParDo(_CutFn(self.call)).with_output_types(Block)


class _CutFn(beam.DoFn):
    def __init__(self, call: ModelCall):
        self.call, self.sizes = call, OutputSizes(call)

    def process(self, block: Block):
        yield from pieces(block, self.call, self.sizes)
