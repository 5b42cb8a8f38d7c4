"""Small tools that know nothing of scoring."""
