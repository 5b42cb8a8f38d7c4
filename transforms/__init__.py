"""What happens to a row, as transforms for anyone's Beam pipeline.

    PCollection[Split] | Read | Validate | Preprocess | Infer | Postprocess -> PCollection[Block]

A `Block` holds some rows of one file as Arrow record batches, the good ones and the refused ones
together. The names below are the whole public surface; `examples/library/` shows them at work.
Nothing here imports TensorFlow before a model is loaded.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "Block": "transforms.block",
    "Column": "transforms.contract",
    "Commit": "transforms.commit",
    "Contract": "transforms.contract",
    "Infer": "transforms.infer",
    "Input": "transforms.inputs",
    "ModelCall": "transforms.model_call",
    "Output": "transforms.outputs",
    "OutputPlan": "transforms.outputs",
    "Postprocess": "transforms.step_postprocess",
    "Preprocess": "transforms.step_preprocess",
    "Read": "transforms.read",
    "ReadSettings": "transforms.format_base",
    "Validate": "transforms.step_validate",
    "WriteParts": "transforms.write",
    "bind_inputs": "transforms.bind",
    "read_signatures": "transforms.model",
    "signature_as_written": "transforms.outputs",
    "split_files": "transforms.splitting",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    # On first use: a command that only looks at a model need not wait for Beam.
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
