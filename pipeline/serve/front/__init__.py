"""The process that clients talk to: HTTP, the queue of waiting requests, and what is known of the versions."""
