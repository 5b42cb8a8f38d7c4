"""SavedModels loaded and called through TensorFlow's C API, without Python's TensorFlow."""
