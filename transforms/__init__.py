"""Transforms that read, validate, score and write rows in any Beam pipeline.

    PCollection[Split] | Read | Validate | Preprocess | Infer | Postprocess -> PCollection[Block]

A `Block` contains rows of one file as Arrow record batches, accepted and rejected rows together. The names below
are the whole public interface; `examples/library/` shows their use. TensorFlow is imported only when a model is loaded.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "Block": "beam_score.transforms.rows.block",
    "Column": "beam_score.transforms.contract.columns",
    "Commit": "beam_score.transforms.steps.commit",
    "Contract": "beam_score.transforms.contract.columns",
    "Infer": "beam_score.transforms.steps.infer",
    "Input": "beam_score.transforms.contract.inputs",
    "ModelCall": "beam_score.transforms.model.call",
    "Output": "beam_score.transforms.contract.outputs",
    "OutputPlan": "beam_score.transforms.contract.outputs",
    "Postprocess": "beam_score.transforms.steps.postprocess",
    "Preprocess": "beam_score.transforms.steps.preprocess",
    "Read": "beam_score.transforms.steps.read",
    "ReadSettings": "beam_score.transforms.formats.base",
    "Validate": "beam_score.transforms.steps.validate",
    "WriteParts": "beam_score.transforms.steps.write",
    "bind_inputs": "beam_score.transforms.contract.binding",
    "read_signatures": "beam_score.transforms.model.servable",
    "signature_as_written": "beam_score.transforms.contract.outputs",
    "split_files": "beam_score.transforms.formats.splitting",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    # Imported on first use: a command that only inspects a model does not wait for Beam.
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
