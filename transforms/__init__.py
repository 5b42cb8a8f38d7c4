"""Transforms that read, validate, score and write rows in any Beam pipeline.

    PCollection[Split] | Read | Validate | Preprocess | Infer | Postprocess -> PCollection[Block]

A `Block` contains rows of one file as Arrow record batches, accepted and rejected rows together. The names below
are the whole public interface; `examples/library/` shows their use. TensorFlow is imported only when a model is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from beam_score.transforms.common.lazy import on_first_use

if TYPE_CHECKING:  # type checkers do not see what `__getattr__` returns
    from beam_score.transforms.contract.binding import bind_inputs as bind_inputs
    from beam_score.transforms.contract.columns import Column as Column
    from beam_score.transforms.contract.columns import Contract as Contract
    from beam_score.transforms.contract.inputs import Input as Input
    from beam_score.transforms.contract.outputs import Output as Output
    from beam_score.transforms.contract.outputs import OutputPlan as OutputPlan
    from beam_score.transforms.contract.outputs import signature_as_written as signature_as_written
    from beam_score.transforms.formats.base import ReadSettings as ReadSettings
    from beam_score.transforms.formats.reading.splitting import split_files as split_files
    from beam_score.transforms.ledger.attempt import WriteSettings as WriteSettings
    from beam_score.transforms.ledger.budget import Budget as Budget
    from beam_score.transforms.ledger.folder import RunFolder as RunFolder
    from beam_score.transforms.model.call import ModelCall as ModelCall
    from beam_score.transforms.model.signature import read_signatures as read_signatures
    from beam_score.transforms.rows.block import Block as Block
    from beam_score.transforms.rows.block import reject_rows as reject_rows
    from beam_score.transforms.rows.faults import Fault as Fault
    from beam_score.transforms.scoring.score import Scorer as Scorer
    from beam_score.transforms.steps.commit import Commit as Commit
    from beam_score.transforms.steps.infer import Infer as Infer
    from beam_score.transforms.steps.postprocess import Postprocess as Postprocess
    from beam_score.transforms.steps.preprocess import Preprocess as Preprocess
    from beam_score.transforms.steps.read import Read as Read
    from beam_score.transforms.steps.validate import Validate as Validate
    from beam_score.transforms.steps.write import WriteParts as WriteParts
    from beam_score.transforms.stores.versions import version_of as version_of

_WHERE = {
    "Block": "beam_score.transforms.rows.block",
    "Budget": "beam_score.transforms.ledger.budget",
    "Column": "beam_score.transforms.contract.columns",
    "Commit": "beam_score.transforms.steps.commit",
    "Contract": "beam_score.transforms.contract.columns",
    "Fault": "beam_score.transforms.rows.faults",
    "Infer": "beam_score.transforms.steps.infer",
    "Input": "beam_score.transforms.contract.inputs",
    "ModelCall": "beam_score.transforms.model.call",
    "Output": "beam_score.transforms.contract.outputs",
    "OutputPlan": "beam_score.transforms.contract.outputs",
    "Postprocess": "beam_score.transforms.steps.postprocess",
    "Preprocess": "beam_score.transforms.steps.preprocess",
    "Read": "beam_score.transforms.steps.read",
    "ReadSettings": "beam_score.transforms.formats.base",
    "RunFolder": "beam_score.transforms.ledger.folder",
    "Scorer": "beam_score.transforms.scoring.score",
    "Validate": "beam_score.transforms.steps.validate",
    "WriteParts": "beam_score.transforms.steps.write",
    "WriteSettings": "beam_score.transforms.ledger.attempt",
    "bind_inputs": "beam_score.transforms.contract.binding",
    "read_signatures": "beam_score.transforms.model.signature",
    "reject_rows": "beam_score.transforms.rows.block",
    "signature_as_written": "beam_score.transforms.contract.outputs",
    "split_files": "beam_score.transforms.formats.reading.splitting",
    "version_of": "beam_score.transforms.stores.versions",
}

__all__ = sorted(_WHERE)

# On first use: a command that only inspects a model does not have to wait for Beam.
__getattr__, __dir__ = on_first_use(__name__, _WHERE)
