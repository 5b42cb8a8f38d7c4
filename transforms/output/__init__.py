"""Encoding of rows as files: predictions and dead letters."""
