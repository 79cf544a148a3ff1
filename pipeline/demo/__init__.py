"""TODO: what pipeline/demo is."""
