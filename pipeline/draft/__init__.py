"""Draft of a job file for `beam-score init`."""
