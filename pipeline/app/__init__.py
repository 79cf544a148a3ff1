"""TODO: what pipeline/app is."""
