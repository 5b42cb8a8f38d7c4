"""The records of a run, and how its output becomes visible: plan, receipts, verdict, manifest."""
