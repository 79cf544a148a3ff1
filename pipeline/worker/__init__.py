"""TODO: what pipeline/worker is."""
