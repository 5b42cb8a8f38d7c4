"""Requests to answers, in the process of one version of the model: judged, scored and written in batches."""
