"""Input formats: how their files are checked, cut into ranges, and read."""
