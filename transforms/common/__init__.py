"""Small utilities that do not depend on scoring."""
