"""Output to terminals, logs and pipes, escaped."""
