"""The chain, one thin Beam transform a file."""

from beam_score.transforms.steps import coder  # noqa: F401 -- registers the encoding of blocks
