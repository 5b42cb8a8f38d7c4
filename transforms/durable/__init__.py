"""The few file operations that all promises rest on: create if absent, swap, publish, lock."""
