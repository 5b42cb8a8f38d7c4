"""SavedModels: find, inspect without TensorFlow, copy, load once, call."""
