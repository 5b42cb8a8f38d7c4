"""What a person sees: summary, progress, status, checks."""
