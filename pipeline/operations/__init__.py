"""TODO: what pipeline/operations is."""
