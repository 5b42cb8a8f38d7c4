"""The versions of a model: a process each, and the pipe to it."""
