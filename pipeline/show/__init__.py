"""Output of the commands: summary, progress, status, checks."""
