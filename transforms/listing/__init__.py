"""Which files a pattern matches, on disk or in a store."""
