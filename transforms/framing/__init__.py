"""Where the records in some bytes begin and end."""
