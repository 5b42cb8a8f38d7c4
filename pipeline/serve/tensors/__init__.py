"""Tensors in the JSON of TensorFlow Serving, for the signatures of the model itself."""
