"""The job file that `init` writes."""
