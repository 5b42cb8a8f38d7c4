"""The dead letters of a finished run as an input format."""
