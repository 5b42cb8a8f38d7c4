"""Lists the files that a pattern matches, on disk or in a store."""
