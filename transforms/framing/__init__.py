"""Record framing: finds the start and end of records in bytes."""
