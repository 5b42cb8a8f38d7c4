"""The command as a process: signals, logs, exit codes, and a parent that survives a crash."""
