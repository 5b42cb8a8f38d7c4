"""Score very many rows with a TensorFlow SavedModel: every row predicted or accounted for."""
