"""The contract: valid values of columns, the model's inputs, and the meaning of its outputs."""
