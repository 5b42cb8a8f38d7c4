"""Reports of the server about its requests: log lines and metrics."""
