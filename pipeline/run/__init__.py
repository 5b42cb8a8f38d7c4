"""Runs a prepared job until it has a verdict, in the presence of concurrent launches."""
