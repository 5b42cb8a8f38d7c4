"""The scoring of blocks, without Beam: validation, preprocessing to tensors, model calls, postprocessing."""
