"""The block that flows through the chain: rows as Arrow, good and rejected together, and their original bytes."""
