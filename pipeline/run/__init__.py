"""From a prepared job to its verdict, whatever other launches do meanwhile."""
