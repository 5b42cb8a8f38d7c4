"""A SavedModel: found, inspected without TensorFlow, copied, loaded once, called."""
