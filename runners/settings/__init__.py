"""The `engine` section of the job file."""
