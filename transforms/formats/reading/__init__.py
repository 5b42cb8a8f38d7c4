"""Files to splits, and splits to blocks of rows, for all formats."""
