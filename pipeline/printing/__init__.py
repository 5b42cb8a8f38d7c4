"""Everything that is printed, escaped."""
