"""Helpers for Arrow and numpy arrays that do not depend on the rest of the project."""
