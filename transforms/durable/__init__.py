"""The few file operations that all guarantees depend on: create if absent, swap, publish, lock."""
