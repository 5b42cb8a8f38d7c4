"""Rows as files: predictions and dead letters."""
