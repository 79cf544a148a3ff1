"""TODO: what pipeline/queries is."""
