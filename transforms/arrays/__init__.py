"""Arrow and numpy arrays, and nothing of this project."""
