"""The steps of the pipeline: one thin Beam transform per file."""

from beam_score.transforms.steps import coder  # noqa: F401 -- registers the encoding of blocks
