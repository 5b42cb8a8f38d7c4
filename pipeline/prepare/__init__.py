"""All checks before a launch."""
