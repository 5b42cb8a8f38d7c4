"""Entry points and supervision of worker processes."""
