"""How the files of each format are checked, cut into ranges, and read."""
