"""Engines behind a Beam job service."""
