"""A block through contract and model, without Beam: validated, made into tensors, scored, interpreted."""
