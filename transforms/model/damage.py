"""Diagnosis of the files of a SavedModel after loading has failed: TensorFlow's messages often do not name the file
("Read less bytes than requested")."""

from __future__ import annotations

import os
from pathlib import Path

from beam_score.transforms.model.signature import serving_graph


def damage(path: str | os.PathLike[str]) -> str | None:
    """Return a phrase that names a missing or damaged file of a SavedModel folder; None if no such file is found.

    Reads all variables. TensorFlow has been imported.

    Raises:
      ModelError: see `transforms.model.signature.serving_graph`.
    """
    import tensorflow as tf

    variables = Path(path, "variables")
    prefix = variables / "variables"
    data = sorted(variables.glob("variables.data-*"))
    if variables.is_dir():
        if not Path(f"{prefix}.index").exists():
            return "variables/variables.index is missing"
        if not data:
            return "variables/variables.data-00000-of-00001 is missing"
        try:
            reader = tf.train.load_checkpoint(str(prefix))
            names = list(reader.get_variable_to_dtype_map())
        except Exception:  # TensorFlow raises various types
            return "variables/variables.index is damaged, or cut short"
        for name in names:
            try:
                reader.get_tensor(name)
            except Exception:
                return (
                    f"{', '.join(f'variables/{file.name}' for file in data)} cannot be read, or is cut short or damaged"
                )
    for asset in serving_graph(path).asset_file_def:
        if not Path(path, "assets", asset.filename).is_file():
            return f"assets/{asset.filename} is missing"
    return None
