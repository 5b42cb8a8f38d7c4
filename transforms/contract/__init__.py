"""The contract: valid values, the inputs of the model, the meaning of its outputs."""
